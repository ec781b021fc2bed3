#!/usr/bin/env python3
"""The tree lints itself: each check returns the list of what breaks a rule of tests/tidy/rules.toml.

    scripts/lint.py                every check that needs no build, and those that do where build/release exists
    scripts/lint.py CHECK...       these checks
    scripts/lint.py --fix-format   clang-format in place

tests/tidy/test_lint.py runs every check on the tree and proves on small broken trees that each can fail.
"""

import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CPP = (".cc", ".h")
TEXT = CPP + (".py", ".sh", ".rs", ".toml", ".cmake", ".txt", ".md", ".json", ".yml", ".yaml", "")
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
CLANG_FORMAT_VERSION = "14.0"


@dataclasses.dataclass
class Tree:
    """A checkout: its rules and its files (paths relative to the root)."""

    root: pathlib.Path
    rules: dict
    files: list[str]

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8", errors="replace")

    def lines(self, path: str) -> list[str]:
        return self.read(path).splitlines()

    def cpp(self) -> list[str]:
        return [path for path in self.files if path.endswith(CPP)]

    def text(self) -> list[str]:
        return [path for path in self.files
                if os.path.splitext(path)[1] in TEXT and b"\0" not in (self.root / path).read_bytes()[:1024]]


def load_tree(root: pathlib.Path = ROOT) -> Tree:
    """The tree as git sees it: tracked files, and new ones that it does not ignore."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=root, check=True,
                            capture_output=True, text=True).stdout
    files = sorted(path for path in listed.split("\0") if path and (root / path).is_file())
    with open(root / "tests/tidy/rules.toml", "rb") as file:
        return Tree(root, tomllib.load(file), files)


def matches(path: str, globs: list[str]) -> bool:
    return any(fnmatch.fnmatch(path, glob) for glob in globs)


def is_test(path: str) -> bool:
    return path.endswith(("_test.cc", "_fuzz.cc", "_testing.h", "_testing.cc")) or "/testing/" in path


def check_includes(tree: Tree) -> list[str]:
    """Every quoted include names a file of src/ or include/ (tests: or of tests/), in a folder that the table allows."""
    table, problems = tree.rules["includes"], []
    known = set(tree.files)
    for path in tree.cpp():
        parts = path.split("/")
        folder = parts[1] if parts[0] == "src" and len(parts) > 2 else None
        if folder is not None and folder not in table:
            problems.append(f"{path}: src/{folder} is not in the table of tests/tidy/rules.toml")
            continue
        for number, line in enumerate(tree.lines(path), 1):
            found = INCLUDE.match(line)
            if found is None:
                continue
            header, where = found.group(1), f"{path}:{number}"
            owners = [who for prefix, who in tree.rules["generated_includes"].items() if header.startswith(prefix)]
            if owners:
                if folder is not None and folder not in owners[0]:
                    problems.append(f"{where}: src/{folder} may not include the generated {header}")
                continue
            roots = ["src", "include"] + (["tests"] if parts[0] == "tests" or is_test(path) else
                                          ["python/src"] if parts[0] == "python" else [])
            if not any(f"{root}/{header}" in known for root in roots):
                problems.append(f"{where}: {header} is no file of {'/, '.join(roots)}/ (write it from there)")
                continue
            target = header.split("/")[0]
            if folder is None or is_test(path) or target in (folder, "pagemill"):
                continue
            if not {"*", target, header} & set(table[folder]):
                problems.append(f"{where}: src/{folder} may not include {header}; it may include "
                                + (", ".join(table[folder]) or "nothing of ours"))
    return problems


def check_public_headers(tree: Tree) -> list[str]:
    """include/pagemill includes itself, the standard library, and the headers of src/ that are part of the API."""
    allowed = set(tree.rules["public_headers"]["api"])
    return [f"{path}:{number}: a public header may not include {found.group(1)}"
            for path in tree.cpp() if path.startswith("include/") and path.endswith(".h")
            for number, line in enumerate(tree.lines(path), 1)
            if (found := INCLUDE.match(line))
            and not found.group(1).startswith("pagemill/") and found.group(1) not in allowed]


def check_size(tree: Tree) -> list[str]:
    """No file is longer than a person reads in one sitting, and none is a hidden data set."""
    limits, problems = tree.rules["limits"], []
    for path in tree.files:
        size = (tree.root / path).stat().st_size
        if size > limits["bytes_per_file"]:
            problems.append(f"{path}: {size} bytes, the limit is {limits['bytes_per_file']}")
    for path in tree.text():
        if path.endswith(CPP + (".py", ".rs", ".sh")) and (count := len(tree.lines(path))) > limits["lines_per_file"]:
            problems.append(f"{path}: {count} lines, the limit is {limits['lines_per_file']}")
    return problems


def check_banned(tree: Tree) -> list[str]:
    """No banned text."""
    problems = []
    for rule in tree.rules["banned"]:
        pattern = re.compile(rule["pattern"])
        for path in tree.text():
            if (not matches(path, rule["files"]) or matches(path, rule.get("except", []))
                    or matches(path, tree.rules["exempt"]["banned"])
                    or (is_test(path) and path.startswith("src/") and rule["files"] != ["*"])):
                continue
            problems += [f"{path}:{number}: '{found.group(0).strip()}': {rule['reason']}"
                         for number, line in enumerate(tree.lines(path), 1) if (found := pattern.search(line))]
    return problems


def check_headers(tree: Tree) -> list[str]:
    """A header says in its first line what it is for, and has #pragma once."""
    problems = []
    for path in tree.cpp():
        if not path.endswith(".h"):
            continue
        lines = tree.lines(path)
        if "#pragma once" not in lines:
            problems.append(f"{path}: no #pragma once")
        if not lines or not lines[0].startswith("//"):
            problems.append(f"{path}:1: no comment that says what the header is for")
    return problems


def check_dead_headers(tree: Tree) -> list[str]:
    """Every header of src/ is included by some file."""
    included = {found.group(1) for path in tree.cpp() for line in tree.lines(path) if (found := INCLUDE.match(line))}
    return [f"{path}: no file includes it" for path in tree.cpp()
            if path.startswith("src/") and path.endswith(".h") and path.removeprefix("src/") not in included]


def compile_commands(tree: Tree) -> list[dict]:
    database = tree.root / "build/release/compile_commands.json"
    if not database.is_file():
        raise SystemExit("this check needs the release build: make build")
    with open(database, encoding="utf-8") as file:
        return json.load(file)


def check_dead_sources(tree: Tree) -> list[str]:
    """Every .cc is compiled by the release build (fuzzers: by the fuzz build, through their folder's pm_library)."""
    built = {os.path.relpath(entry["file"], tree.root) for entry in compile_commands(tree)}
    problems = []
    for path in tree.cpp():
        if not path.endswith(".cc") or path in built:
            continue
        cmake = os.path.join(os.path.dirname(path), "CMakeLists.txt")
        is_built_elsewhere = (path.endswith("_fuzz.cc") and cmake in tree.files and "pm_library(" in tree.read(cmake)
                              ) or path.startswith(("bridge/", "python/"))
        if not is_built_elsewhere:
            problems.append(f"{path}: no target compiles it")
    return problems


def leaked_symbols(nm_output: str, namespace: str) -> list[str]:
    """Code that an object defines outside the namespace of its instruction set. A weak one (an inline function or a
    template of a shared header) may be picked by the linker for every caller, and then runs on machines without
    that instruction set."""
    leaks = []
    for line in nm_output.splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[1] in "TWVu" and f"{namespace}::" not in parts[2]:
            if not parts[2].startswith("DW.ref."):
                leaks.append(f"{parts[1]} {parts[2]}")
    return leaks


def check_isa_symbols(tree: Tree) -> list[str]:
    """Objects compiled for an instruction set define nothing outside its namespace."""
    problems, seen = [], 0
    for entry in compile_commands(tree):
        command = entry.get("command") or " ".join(entry["arguments"])
        source = os.path.relpath(entry["file"], tree.root)
        if not re.search(r"-mavx|-march=", command) or is_test(source):
            continue
        namespace = next((isa for isa in ("avx512bf16", "avx512") if f"-m{isa}" in command), "avx2")
        built = pathlib.Path(entry["directory"]) / re.search(r" -o (\S+)", command).group(1)
        if not built.is_file():
            problems.append(f"{source}: not built yet, so its symbols can't be checked")
            continue
        seen += 1
        output = subprocess.run(["nm", "-C", "--defined-only", str(built)], check=True, capture_output=True, text=True)
        problems += [f"{source}: defines outside {namespace}:: {leak}"
                     for leak in leaked_symbols(output.stdout, namespace)]
    if seen == 0 and any(matches(path, ["src/kernels/*.cc"]) for path in tree.files):
        problems.append("no object is compiled for an instruction set: did the flags' spelling change?")
    return problems


def clang_format() -> str:
    """The pinned clang-format: every version breaks lines its own way."""
    for candidate in (str(ROOT / "build/venv/bin/clang-format"), "clang-format-14", "clang-format"):
        path = shutil.which(candidate)
        if path and f"version {CLANG_FORMAT_VERSION}" in subprocess.run(
                [path, "--version"], capture_output=True, text=True).stdout:
            return path
    raise SystemExit(f"clang-format {CLANG_FORMAT_VERSION} is needed: scripts/venv.sh installs it")


def check_format(tree: Tree) -> list[str]:
    """Every C++ file is as the pinned clang-format would write it."""
    program = clang_format()

    def differs(path: str) -> str | None:
        done = subprocess.run([program, "--dry-run", "--Werror", path], cwd=tree.root, capture_output=True, text=True)
        return None if done.returncode == 0 else f"{path}: not formatted (make format)"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [problem for problem in pool.map(differs, tree.cpp()) if problem]


def check_scripts(tree: Tree) -> list[str]:
    """Shell scripts parse and stop at the first error; Python compiles."""
    problems = []
    for path in tree.files:
        source = tree.root / path
        if path.endswith(".py"):
            try:
                compile(source.read_text(encoding="utf-8"), path, "exec")
            except SyntaxError as error:
                problems.append(f"{path}:{error.lineno}: {error.msg}")
        elif path.endswith(".sh") or path == ".ci/run":
            if subprocess.run(["bash", "-n", str(source)], capture_output=True).returncode != 0:
                problems.append(f"{path}: bash can't parse it")
            if os.access(source, os.X_OK) and "set -euo pipefail" not in tree.read(path):
                problems.append(f"{path}: no 'set -euo pipefail'")
    return problems


def check_links(tree: Tree) -> list[str]:
    """Relative links of Markdown files lead somewhere."""
    problems = []
    for path in tree.files:
        if not path.endswith(".md"):
            continue
        prose = re.sub(r"```.*?```", "", tree.read(path), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:|#", target):
                continue
            if not (tree.root / os.path.dirname(path) / target.split("#")[0]).exists():
                problems.append(f"{path}: the link to {target} leads nowhere")
    return problems


CHECKS = {name.removeprefix("check_"): function
          for name, function in list(globals().items()) if name.startswith("check_")}


def main(arguments: list[str]) -> int:
    tree = load_tree()
    if arguments == ["--fix-format"]:
        return subprocess.run([clang_format(), "-i", *tree.cpp()], cwd=tree.root).returncode
    names = arguments or list(CHECKS)
    if not arguments and not (ROOT / "build/release/compile_commands.json").is_file():
        names = [name for name in names if name not in ("dead_sources", "isa_symbols")]
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"no such check: {', '.join(unknown)}; there are: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    problems = [f"[{name}] {problem}" for name in names for problem in CHECKS[name](tree)]
    print("\n".join(problems) if problems else f"{len(names)} checks, {len(tree.files)} files: clean")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
