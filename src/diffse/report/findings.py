"""All that is computed from the artifacts before anything is written: one source for page and tables."""

from dataclasses import dataclass

from diffse.report import against, breakdown, compare, significance
from diffse.report.against import Line
from diffse.report.artifacts import Project
from diffse.report.breakdown import Breakdown
from diffse.report.compare import Compared
from diffse.report.significance import Ranking
from diffse.settings import Params


@dataclass(frozen=True)
class Findings:
    """By corpus: systems beside their input, rankings by metric, breakdowns; and the lines of the papers."""

    tables: dict[str, list[Compared]]
    rankings: dict[str, dict[str, Ranking]]
    breakdowns: dict[str, list[Breakdown]]
    lines: list[Line]


def find(project: Project, params: Params) -> Findings:
    """Compute everything. DiffseError for a setting that names what is not there."""
    corpora = project.corpora
    return Findings(
        tables={corpus: compare.compare(project, corpus, params.evaluate) for corpus in corpora},
        rankings={corpus: significance.rankings(project, corpus, params) for corpus in corpora},
        breakdowns={corpus: breakdown.breakdowns(project, corpus, params) for corpus in corpora},
        lines=against.lines(project, params),
    )
