"""Each published figure and table, with a verdict on its claim."""

from gridpool.studies.study import STUDIES, Claim, Study, StudyResult, Verdict, run_study

__all__ = ["STUDIES", "Claim", "Study", "StudyResult", "Verdict", "run_study"]
