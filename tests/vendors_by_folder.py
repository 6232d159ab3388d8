"""An import contract for `make check`: each folder imports only the packages that it is listed with in pyproject.toml."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class VendorsByFolder(Contract):
    """`allowed` has a line for each folder: `pipeline.decode: PIL numpy`. A folder that has no line may import no package.

    A module belongs to the deepest folder it lies in, so a new module falls under a contract by its place alone.
    """

    type_name = "vendors_by_folder"

    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        allowed = dict(_parsed(line) for line in self.allowed)
        ours = set(self.session_options["root_packages"])
        modules = sorted(module for module in graph.modules if module.split(".")[0] in ours)
        folders = {module for module in modules if graph.find_children(module)}
        broken = [
            (module, vendor)
            for module in modules
            for vendor in sorted(_vendors(graph, module, ours))
            if vendor not in allowed.get(_folder(module, folders), set())
        ]
        unknown = sorted(set(allowed) - folders)
        return ContractCheck(kept=not broken and not unknown, metadata={"broken": broken, "unknown": unknown})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for module, vendor in check.metadata["broken"]:
            output.print_error(f"{module} imports {vendor}, which its folder is not listed with in pyproject.toml.")
        for folder in check.metadata["unknown"]:
            output.print_error(f"{folder} is listed in pyproject.toml, but there is no such folder.")


def _parsed(line: str) -> tuple[str, set[str]]:
    folder, _, vendors = line.partition(":")
    return folder.strip(), set(vendors.split())


def _vendors(graph: ImportGraph, module: str, ours: set[str]) -> Iterator[str]:
    for imported in graph.find_modules_directly_imported_by(module):
        package = imported.split(".")[0]
        if package not in ours and package not in sys.stdlib_module_names:
            yield package


def _folder(module: str, folders: set[str]) -> str:
    return module if module in folders else module.rpartition(".")[0]
