"""The source archive of a package on the index that pip is configured with.

pip itself has no command for it: `pip download --no-binary` wants to build the package's metadata, for which vLLM's needs torch.
"""

import hashlib
import pathlib
import tarfile

from pip._internal.commands import create_command


def fetch(name: str, version: str, folder: pathlib.Path) -> pathlib.Path:
    """Unpacks the sdist into `folder`, checked against the index's hash; its root. Raises LookupError where the index has
    none or can't be reached."""
    command = create_command("download")
    options, _ = command.parse_args(["--no-binary=:all:", "--retries=1", "--timeout=20", name])
    session = command._build_session(options)
    finder = command._build_package_finder(options, session)
    links = [found.link for found in finder.find_all_candidates(name) if str(found.version) == version]
    if not links:
        raise LookupError(f"the index is out of reach, or has no source archive of {name} {version}")
    link = links[0]
    content = session.get(link.url_without_fragment, timeout=60).content
    if link.hash_name is not None and hashlib.new(link.hash_name, content).hexdigest() != link.hash:
        raise LookupError(f"{name} {version}: what came is not what the index says")
    archive = folder / link.filename
    archive.write_bytes(content)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")
