"""``manage.py jobcast``: the commands of jobcast with the settings of Django."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from jobcast.cli.main import main
from jobcast.integrations.django import conf


class Command(BaseCommand):
    help = "Run a command of jobcast with the settings of Django, as in: manage.py jobcast serve"

    def run_from_argv(self, argv: list[str]) -> None:
        # Django would read options such as --help itself.
        conf.export()
        main(args=argv[2:], prog_name="manage.py jobcast")

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *_: Any, arguments: list[str], **__: Any) -> None:
        conf.export()
        main(args=arguments, prog_name="manage.py jobcast", standalone_mode=False)
