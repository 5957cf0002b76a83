"""A chaos run of feeds, shortened: at the end every list agrees with the records of its jobs."""

from __future__ import annotations

from bench.feed_chaos.report import Options
from bench.feed_chaos.run import feed_chaos


def test_lists_agree_with_the_records_after_faults_and_show_no_foreign_job() -> None:
    report = feed_chaos(Options(jobs=70, owners=6, seconds=12, seed=7))
    details = f"{report.table()}\n\n{report.details()}\n\nlogs: {report.folder}"
    assert report.differences == [], details
    assert report.foreign == [], details
    assert report.records == [], details
    assert all(report.faults.values()), details
    assert report.counts["jobs sent under the id of another owner's job"], details
    assert report.counts["messages: feed_gone"], details
    assert {"complete", "error, failure"} <= set(report.endings), details
