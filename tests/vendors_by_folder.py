"""An import contract for `make check`: a folder may import only the packages that pyproject.toml lists for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class VendorsByFolder(Contract):
    """`allowed` has a line for each folder, such as `pipeline.decode: PIL numpy`. A folder without a line may import no package.

    The line of a module's own folder applies to it, so a new module is covered without a change of the contract.
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
