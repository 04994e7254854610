"""What pyproject.toml cannot say: the claims, which lie beside src/, go into the wheel as boresight/_claims."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CLAIMS = Path("claims")


class BuildWithClaims(build_py):
    """The usual build, and the claims with their recorded results; an editable install reads them where they are."""

    def _claims(self):
        target = Path(self.build_lib) / "boresight" / "_claims"
        files = [*sorted(CLAIMS.glob("*.py")), *CLAIMS.glob("results.jsonl")]
        return {str(target / file.name): str(file) for file in files}

    def run(self):
        """Build, then copy the claims."""
        super().run()
        if not self.editable_mode:
            for target, source in self._claims().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode=True):
        """The files that a build makes, the claims among them."""
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self._claims()))

    def get_output_mapping(self):
        """Each file that a build makes, with where it comes from."""
        return super().get_output_mapping() | ({} if self.editable_mode else self._claims())


setup(cmdclass={"build_py": BuildWithClaims})
