"""Models from the Hugging Face Hub, by the real binary against a Hub on loopback, and the cache that it shares with the
huggingface_hub package."""

import os
import pathlib
import pty
import ssl
import subprocess
import sys
import time

import huggingface_hub
import pytest
from conftest import BINARY, ROOT, Server
from hub_server import HubServer, Repo, etag_of

TINY = ROOT / "tests/golden/tiny"
NAME = "org/tiny"
WEIGHTS = "model.safetensors"


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".golden")}


CHAT = files_of(TINY / "chat")


@pytest.fixture
def hub():
    server = HubServer()
    server.repos[NAME] = Repo({**CHAT, "README.md": b"# Tiny", "pytorch_model.bin": b"no", "onnx/model.onnx": b"no"})
    yield server
    server.close()


class User:
    """Somebody's environment: a cache of their own, and the Hub to ask."""

    def __init__(self, home: pathlib.Path, endpoint: str) -> None:
        self.home = home
        self.cache = home / "hub"
        self.repo = self.cache / "models--org--tiny"
        self.variables = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint}

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "SSL_", "CURL_"))}
        return {**kept, "no_proxy": "*", **self.variables, **variables}

    def start(self, *arguments, stderr=subprocess.PIPE, **variables: str) -> subprocess.Popen:
        return subprocess.Popen([str(BINARY), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=stderr, text=True, env=self.environment(**variables))

    def generate(self, model=NAME, *options, **variables: str) -> subprocess.CompletedProcess:
        process = self.start("generate", model, "-p", "the", "--max-tokens", 4, "--temperature", 0, *options, **variables)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def snapshot(self, revision="main") -> pathlib.Path:
        return self.repo / "snapshots" / (self.repo / "refs" / revision).read_text()

    def blob(self, file: str, content: bytes) -> pathlib.Path:
        return self.repo / "blobs" / etag_of(file, content)


@pytest.fixture
def user(tmp_path, hub):
    return User(tmp_path / "home", hub.url)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """What the tiny model says, read from its folder."""
    done = User(tmp_path_factory.mktemp("none"), "http://127.0.0.1:1").generate(TINY / "chat")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    return done.stdout


def test_a_model_is_fetched_and_its_second_start_needs_no_network(hub, user, words):
    first = user.generate()
    assert first.returncode == 0 and first.stdout == words, first.stderr
    assert sorted(path.name for path in user.snapshot().iterdir()) == sorted(CHAT)
    assert user.snapshot().name == hub.repos[NAME].refs["main"]
    for name, content in CHAT.items():
        link = user.snapshot() / name
        assert os.readlink(link) == f"../../blobs/{etag_of(name, content)}" and link.read_bytes() == content
    assert all(len(hub.gets(name)) == 1 for name in CHAT) and not hub.gets("README.md") + hub.gets("pytorch_model.bin")
    assert f"downloaded {WEIGHTS}" in first.stderr and "Signature" not in first.stderr
    hub.seen.clear()
    again = user.generate()
    assert again.stdout == words and [seen.path.split("/")[1] for seen in hub.seen] == ["api"], again.stderr
    hub.seen.clear()
    assert user.generate(HF_HUB_OFFLINE="1").stdout == words and not hub.seen


def test_a_hub_that_cannot_be_reached(hub, user, words):
    assert user.generate().returncode == 0
    hub.close()
    started = time.monotonic()
    done = user.generate()
    assert done.stdout == words and "from the cache" in done.stderr
    assert time.monotonic() - started < 60
    (user.snapshot() / WEIGHTS).unlink()
    done = user.generate(HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "HF_HUB_OFFLINE" in done.stderr and WEIGHTS in done.stderr


def test_nothing_cached_and_no_hub(user, hub):
    hub.close()
    done = user.generate()
    assert done.returncode == 1 and hub.url in done.stderr and "trying again" in done.stderr
    assert str(user.cache) in done.stderr


def test_a_server_that_is_busy_is_asked_again(hub, user, words):
    hub.fault("api", status=503)
    hub.fault(WEIGHTS, head=True, status=429)
    hub.fault(WEIGHTS, status=500)
    hub.fault("config.json", cut_at=0)
    done = user.generate()
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert done.stderr.count("trying again") == 4


def test_a_new_commit_is_fetched_and_shares_what_did_not_change(hub, user):
    assert user.generate().returncode == 0
    old = user.snapshot()
    changed = {**CHAT, "config.json": CHAT["config.json"] + b"\n"}
    hub.repos[NAME].commit("main", changed)
    hub.seen.clear()
    assert user.generate().returncode == 0
    assert len(hub.gets("config.json")) == 1 and not hub.gets(WEIGHTS)
    assert user.snapshot() != old and (user.snapshot() / WEIGHTS).samefile(old / WEIGHTS)


def test_an_update_that_fails_leaves_the_old_snapshot_in_use(hub, user, words):
    assert user.generate().returncode == 0
    old = user.snapshot()
    hub.repos[NAME].commit("main", {**CHAT, WEIGHTS: CHAT[WEIGHTS] + b"\0"})
    for _ in range(9):
        hub.fault(WEIGHTS, status=503)
    done = user.generate()
    assert done.stdout == words and "from the cache" in done.stderr and user.snapshot() == old


@pytest.mark.parametrize("revision", ["v1", "feature/x", "refs/pr/7", "commit"])
def test_revisions(hub, user, revision):
    commit = hub.repos[NAME].commit("main" if revision == "commit" else revision, dict(CHAT))
    hub.repos[NAME].commit("main", {})
    revision = commit if revision == "commit" else revision
    done = user.generate(NAME, "--revision", revision)
    assert done.returncode == 0, done.stderr
    assert (user.repo / "snapshots" / commit / WEIGHTS).exists()
    assert revision == commit or (user.repo / "refs" / revision).read_text() == commit
    done = user.generate(NAME, "--revision", "v9")
    assert done.returncode == 1 and "no such revision 'v9'" in done.stderr and "a branch, a tag" in done.stderr
    assert user.generate(NAME, "--revision", "../x").returncode == 1


def test_a_renamed_repository_is_followed(hub, user, words):
    hub.renamed["old/name"] = NAME
    done = user.generate("old/name", HF_TOKEN="hf_secret")
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert (user.cache / "models--old--name/refs/main").exists()


@pytest.mark.parametrize("variant", ["sharded", "torch_bin", "torch_bin_sharded"])
def test_weights_in_shards_and_as_torch_saves_them(hub, user, variant):
    files = {**CHAT, **files_of(TINY / variant)}
    del files[WEIGHTS]
    hub.repos[NAME] = Repo({**files, "consolidated.safetensors": b"no"})
    done = user.start("inspect", NAME)
    stdout, stderr = done.communicate(timeout=60)
    assert done.returncode == 0 and "LlamaForCausalLM" in stdout, stderr
    assert sorted(path.name for path in user.snapshot().iterdir()) == sorted(files)
    shard = sorted(name for name in files if name.endswith((".safetensors", ".bin")))[-1]
    (user.snapshot() / shard).unlink()
    done = user.generate(HF_HUB_OFFLINE="1")
    assert done.returncode == 1 and "not in the cache" in done.stderr or "torch_bin" == variant


@pytest.fixture
def gguf_repo(hub):
    files = {f"tiny-{quant}.gguf": (TINY / f"gguf_{quant.lower()}/model.gguf").read_bytes() for quant in
             ("Q4_0", "Q8_0", "Q4_K_M")}
    hub.repos["org/tiny-GGUF"] = Repo({**files, "README.md": b"", "mmproj-Q8_0.gguf": b"no"})
    return "org/tiny-GGUF"


@pytest.mark.parametrize("suffix, options, file", [
    (":Q8_0", [], "tiny-Q8_0.gguf"),
    (":q4_0", [], "tiny-Q4_0.gguf"),
    ("", [], "tiny-Q4_K_M.gguf"),
    ("", ["--gguf-file", "tiny-Q4_0.gguf"], "tiny-Q4_0.gguf"),
])
def test_a_file_of_a_gguf_repository(hub, user, gguf_repo, suffix, options, file):
    process = user.start("inspect", gguf_repo + suffix, *options)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and file in stdout, stderr
    assert [seen.path.split("?")[0].split("/")[-1] for seen in hub.seen if seen.host == "cdn"] == [file]


def test_a_quantization_that_is_not_there_lists_those_that_are(user, gguf_repo):
    done = user.generate(gguf_repo + ":Q2_K")
    assert done.returncode == 1
    assert "Q2_K" in done.stderr and "tiny-Q4_0.gguf, tiny-Q4_K_M.gguf, tiny-Q8_0.gguf" in done.stderr


def wait_for(condition, limit_s=60):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("ignore_range", [False, True])
def test_a_killed_download_goes_on_where_it_was(hub, user, words, ignore_range):
    content = CHAT[WEIGHTS]
    half = len(content) // 2
    hub.fault(WEIGHTS, stall_at=half)
    process = user.start("generate", NAME, "-p", "x")
    incomplete = user.blob(WEIGHTS, content).with_suffix(".incomplete")
    wait_for(lambda: incomplete.exists() and incomplete.stat().st_size == half)
    process.kill()
    process.communicate()
    hub.release.set()
    assert not (user.repo / "refs/main").exists() and not user.blob(WEIGHTS, content).exists()
    hub.fault(WEIGHTS, ignore_range=ignore_range)
    done = user.generate()
    assert done.returncode == 0 and done.stdout == words, done.stderr
    first, second = hub.gets(WEIGHTS)
    assert "range" not in first.headers and second.headers["range"] == f"bytes={half}-"
    assert user.blob(WEIGHTS, content).read_bytes() == content and not incomplete.exists()


def test_a_connection_that_breaks_goes_on_where_it_was(hub, user, words):
    for at in (1000, 20000, 20000, 60000):
        hub.fault(WEIGHTS, cut_at=at)
    done = user.generate()
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert [seen.headers.get("range") for seen in hub.gets(WEIGHTS)] == [
        None, "bytes=1000-", "bytes=20000-", "bytes=20000-", "bytes=60000-"]


def test_a_connection_on_which_nothing_comes_is_given_up(hub, user, words):
    hub.fault(WEIGHTS, stall_at=1000)
    done = user.generate(HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert "HF_HUB_DOWNLOAD_TIMEOUT" in done.stderr and hub.gets(WEIGHTS)[1].headers["range"] == "bytes=1000-"


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json"])
def test_wrong_bytes_are_thrown_away_and_fetched_again(hub, user, words, file):
    hub.fault(file, flip=True)
    done = user.generate()
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert "SHA" in done.stderr and "fetched again" in done.stderr and len(hub.gets(file)) == 2


def test_wrong_bytes_of_an_earlier_attempt_are_found(hub, user, words):
    content = CHAT[WEIGHTS]
    incomplete = user.blob(WEIGHTS, content).with_suffix(".incomplete")
    incomplete.parent.mkdir(parents=True)
    incomplete.write_bytes(b"x" * 100)
    done = user.generate()
    assert done.returncode == 0 and done.stdout == words, done.stderr
    assert [seen.headers.get("range") for seen in hub.gets(WEIGHTS)] == ["bytes=100-", None]


def test_bytes_that_are_never_right_are_refused(hub, user):
    for _ in range(9):
        hub.fault(WEIGHTS, flip=True)
    done = user.generate()
    assert done.returncode == 1 and "refused" in done.stderr and etag_of(WEIGHTS, CHAT[WEIGHTS]) in done.stderr
    assert not user.blob(WEIGHTS, CHAT[WEIGHTS]).exists() and len(hub.gets(WEIGHTS)) == 3


def test_the_token_goes_to_the_hub_alone(hub, user, words):
    hub.repos[NAME].token = "hf_secret"
    done = user.generate(HF_TOKEN="hf_secret")
    assert done.returncode == 0 and done.stdout == words, done.stderr
    sent = {(seen.host, seen.headers.get("authorization")) for seen in hub.seen}
    assert sent == {("hub", "Bearer hf_secret"), ("cdn", None)} and "hf_secret" not in done.stderr


def test_the_token_of_a_login(hub, user):
    hub.repos[NAME].token = "hf_secret"
    user.home.mkdir()
    (user.home / "token").write_text("hf_secret\n")
    assert user.generate().returncode == 0
    done = user.generate(HF_HUB_DISABLE_IMPLICIT_TOKEN="1", HF_HUB_CACHE=str(user.home / "other"))
    assert done.returncode == 1


def test_what_may_not_be_read_says_what_would_be_right(hub, user):
    hub.repos[NAME].token = "hf_secret"
    for variables, words in [({}, ["HTTP 401", "set HF_TOKEN"]),
                             ({"HF_TOKEN": "hf_wrong"}, ["HTTP 404", "the token from HF_TOKEN"])]:
        done = user.generate(**variables)
        assert done.returncode == 1 and all(word in done.stderr for word in [NAME, *words]), done.stderr
    hub.repos[NAME].gated = True
    for variables, words in [({}, ["HTTP 401", "accept its licence at", "set HF_TOKEN"]),
                             ({"HF_TOKEN": "hf_wrong"}, ["HTTP 403", "accept its licence at", "HF_TOKEN"])]:
        done = user.generate(**variables)
        assert done.returncode == 1 and all(word in done.stderr for word in [NAME, *words]), done.stderr
    assert user.generate(HF_TOKEN="hf_secret").returncode == 0


def test_a_model_that_is_not_there(user):
    done = user.generate("org/none")
    assert done.returncode == 1 and "'org/none'" in done.stderr and "no such repository" in done.stderr
    assert "trying again" not in done.stderr


def test_two_processes_at_once_fetch_each_file_once(hub, user, words):
    hub.fault(WEIGHTS, stall_at=1000)
    arguments = ["generate", NAME, "-p", "the", "--max-tokens", 4, "--temperature", 0]
    processes = [user.start(*arguments, HF_HUB_DOWNLOAD_TIMEOUT="60") for _ in range(2)]
    wait_for(lambda: len([seen for seen in hub.seen if seen.method == "HEAD" and WEIGHTS in seen.path]) == 2
             and hub.gets(WEIGHTS))
    time.sleep(0.2)
    hub.release.set()
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0 and stdout == words, stderr
    assert all(len(hub.gets(name)) == 1 for name in CHAT)


def test_a_cache_that_cannot_be_written_is_named(hub, user):
    user.home.mkdir()
    user.cache.write_text("a file in the way")
    done = user.generate()
    assert done.returncode == 1 and str(user.cache) in done.stderr


def test_a_full_disk_is_named_before_anything_is_fetched(hub, user):
    hub.claimed_sizes[WEIGHTS] = 1 << 60
    done = user.generate()
    assert done.returncode == 1 and "the disk is full" in done.stderr and str(user.repo) in done.stderr
    assert not any(hub.gets(name) for name in CHAT)


def test_a_certificate_that_is_not_trusted_is_refused(tmp_path, words):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    hub = HubServer(context)
    try:
        hub.repos[NAME] = Repo(dict(CHAT))
        user = User(tmp_path / "home", hub.url)
        refused = user.generate()
        assert refused.returncode == 1 and "SSL_CERT_FILE" in refused.stderr and not hub.seen
        done = user.generate(SSL_CERT_FILE=str(certificate))
        assert done.returncode == 0 and done.stdout == words, done.stderr
    finally:
        hub.close()


def test_a_bar_on_a_terminal(hub, user):
    terminal, other_end = pty.openpty()
    process = user.start("generate", NAME, "-p", "x", "--max-tokens", 1, stderr=other_end)
    os.close(other_end)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # its other end is closed
            break
    os.close(terminal)
    assert process.wait(60) == 0, shown
    process.stdout.close()
    lines = [line.split("\r")[-1] for line in shown.decode().replace("\r\n", "\n").split("\n")]
    for name in CHAT:
        assert [line for line in lines if line.startswith(name) and "100% [=====" in line], (name, lines)


def test_a_server_knows_the_model_by_its_name(hub, user, monkeypatch):
    for name, value in user.environment().items():
        monkeypatch.setenv(name, value)
    server = Server(NAME)
    try:
        client = server.client()
        assert [model.id for model in client.models.list()] == [NAME]
        assert client.completions.create(model=NAME, prompt="the", max_tokens=2).usage.completion_tokens == 2
        assert client.models.retrieve(NAME).id == NAME
        assert server.terminate() == 0
    finally:
        server.stop()


def layout(cache: pathlib.Path) -> dict[str, str]:
    """Every file below models--*, with a link's target or a digest of its bytes."""
    found = {}
    for path in cache.glob("models--*/**/*"):
        name = str(path.relative_to(cache))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and "/trees/" not in name and ".no_exist" not in name:
            found[name] = etag_of("x.bin", path.read_bytes())
    return found


@pytest.fixture
def python_user(tmp_path, hub):
    """The same as `user`, by the real package."""
    return User(tmp_path / "python", hub.url)


def test_the_cache_is_laid_out_as_by_huggingface_hub(hub, user, python_user):
    assert user.generate(NAME).returncode == 0
    folder = huggingface_hub.snapshot_download(NAME, cache_dir=python_user.cache, endpoint=hub.url, token=False,
                                               allow_patterns=sorted(CHAT))
    assert layout(user.cache) == layout(python_user.cache) and len(layout(user.cache)) == 2 * len(CHAT) + 1
    assert pathlib.Path(folder) == python_user.snapshot()


def test_what_huggingface_hub_fetched_is_found(hub, python_user, words):
    huggingface_hub.snapshot_download(NAME, cache_dir=python_user.cache, endpoint=hub.url, token=False)
    hub.seen.clear()
    done = python_user.generate()
    assert done.stdout == words and [seen.path.split("/")[1] for seen in hub.seen] == ["api"], done.stderr
    hub.close()
    assert python_user.generate(HF_HUB_OFFLINE="1").stdout == words


def test_what_huggingface_hub_fetched_in_part_is_completed(hub, python_user, words):
    huggingface_hub.hf_hub_download(NAME, "config.json", cache_dir=python_user.cache, endpoint=hub.url, token=False)
    hub.seen.clear()
    assert python_user.generate().stdout == words
    assert not hub.gets("config.json") and len(hub.gets(WEIGHTS)) == 1


def test_huggingface_hub_finds_what_was_fetched(hub, user):
    assert user.generate().returncode == 0
    hub.seen.clear()
    options = {"cache_dir": user.cache, "endpoint": hub.url, "token": False}
    for name, content in CHAT.items():
        assert pathlib.Path(huggingface_hub.hf_hub_download(NAME, name, **options)).read_bytes() == content
    assert not [seen for seen in hub.seen if seen.method == "GET"]
    hub.close()
    assert pathlib.Path(huggingface_hub.snapshot_download(NAME, local_files_only=True, **options)) == user.snapshot()
    report = huggingface_hub.scan_cache_dir(user.cache)
    assert not report.warnings and [repo.repo_id for repo in report.repos] == [NAME]
    assert report.size_on_disk == sum(map(len, CHAT.values()))


def test_huggingface_hub_and_pagemill_wait_for_each_other(hub, user, words):
    hub.fault(WEIGHTS, stall_at=1000)
    script = ("import huggingface_hub as h; "
              f"h.hf_hub_download({NAME!r}, {WEIGHTS!r}, token=False); print('fetched')")
    python = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                              env=user.environment(HF_HUB_DOWNLOAD_TIMEOUT="60"))
    wait_for(lambda: hub.gets(WEIGHTS))
    process = user.start("generate", NAME, "-p", "the", "--max-tokens", 4, "--temperature", 0)
    wait_for(lambda: len([seen for seen in hub.seen if seen.method == "HEAD" and WEIGHTS in seen.path]) == 2)
    time.sleep(0.2)
    hub.release.set()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0 and stdout == words and "waiting for another process" in stderr, stderr
    assert python.communicate(timeout=60)[0].strip() == "fetched" and len(hub.gets(WEIGHTS)) == 1
