"""An import contract that names what is allowed, for a part of the code that is to stay pure.

import-linter's own kinds name what is forbidden, and so don't see what nobody thought of: a new module beside those
that are listed, or a library that was added since.
"""

from __future__ import annotations

import sys
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """`source` and what is in it imports the standard library, itself and `allowed`, and nothing else, directly.

    Modules are followed to what is really imported: `from rackwright import kube` imports `rackwright.kube`.
    """

    type_name = "only"

    source = fields.StringField()
    allowed = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 (import-linter's signature)
        """Find every import of anything else."""
        source = str(self.source)
        allowed: Any = self.allowed  # import-linter has put the values in the fields' place
        packages = [source, *allowed]
        found = [
            (module, imported)
            for module in sorted({source, *graph.find_descendants(source)})
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if imported.partition(".")[0] not in sys.stdlib_module_names
            and not any(imported == package or imported.startswith(f"{package}.") for package in packages)
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each import that breaks the contract."""
        for module, imported in check.metadata["found"]:
            output.print_error(f"{module} imports {imported}, which is not among what it may import")
