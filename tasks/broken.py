"""An audit that fails if the books do not balance."""

import csv
from decimal import Decimal, InvalidOperation
from pathlib import Path

from celery import shared_task

from jobcast import ProgressTask

COLUMNS = ["date", "text", "amount", "balance"]


class LedgerError(ValueError):
    """The ledger does not balance."""


@shared_task(base=ProgressTask, bind=True)
def audit_ledger(self: ProgressTask, path: str) -> dict[str, str | int]:
    """Check that each line's balance is the previous balance plus the line's amount.

    Raises:
        LedgerError: a balance is wrong, or the file is not a ledger. The error fails the job.
    """
    ledger = Path(path)
    if not ledger.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with ledger.open(encoding="utf-8-sig", newline="") as file:
        total = sum(1 for _ in file) - 1
        file.seek(0)
        rows = csv.DictReader(file)
        if rows.fieldnames != COLUMNS:
            raise LedgerError(f"line 1 should be the header {','.join(COLUMNS)}")

        entries, balance, year = 0, Decimal(), ""
        for row in self.track(rows, total, "checking balances"):
            if year and row["date"][:4] != year:
                self.log(f"{year} adds up: it ends with {balance}")
            year = row["date"][:4]
            try:
                balance += Decimal(row["amount"])
                stated = Decimal(row["balance"])
            except (InvalidOperation, TypeError):
                raise LedgerError(f"line {rows.line_num}: a number is missing") from None
            if stated != balance:
                raise LedgerError(f"line {rows.line_num}: the balance is {balance}, not {stated}")
            entries += 1
    return {"entries": entries, "balance": str(balance)}
