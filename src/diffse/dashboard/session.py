"""The project that this process serves; pages ask for it here."""

from diffse.dashboard.project import Project

_projects: list[Project] = []


def open_project(project: Project) -> None:
    """Serve `project` from now on."""
    _projects[:] = [project]


def project() -> Project:
    """The project being served."""
    return _projects[0]
