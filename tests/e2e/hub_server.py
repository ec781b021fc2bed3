"""A Hugging Face Hub on loopback: its API as far as fetching a model needs it, its redirects to another host for large
files, and what can go wrong on the way."""

import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

LARGE = (".safetensors", ".bin", ".gguf")  # what the Hub keeps in LFS, and serves from a CDN


@dataclasses.dataclass
class Repo:
    files: dict[str, bytes]
    refs: dict[str, str] = dataclasses.field(default_factory=dict)  # revision to commit
    commits: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    token: str = ""  # needed to read it
    gated: bool = False

    def __post_init__(self):
        self.commit("main", self.files)

    def commit(self, revision: str, files: dict[str, bytes]) -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha] = files
        self.refs[revision] = sha
        return sha


@dataclasses.dataclass
class Fault:
    """What befalls the next GET (or HEAD, with `head`) of a file's bytes, then no more."""

    status: int = 0  # answered instead
    cut_at: int = -1  # the connection ends after so many bytes
    stall_at: int = -1  # no more than so many bytes come until `release`
    flip: bool = False  # one byte is wrong
    ignore_range: bool = False
    head: bool = False


@dataclasses.dataclass
class Seen:
    host: str  # "hub" or "cdn"
    method: str
    path: str
    headers: dict[str, str]


def etag_of(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class HubServer:
    """Serves `repos` until close(); `seen` has every request."""

    def __init__(self, ssl_context=None) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.claimed_sizes: dict[str, int] = {}  # of large files, instead of the truth
        self.seen: list[Seen] = []
        self.release = threading.Event()
        self._servers = [self._start("hub", ssl_context), self._start("cdn", ssl_context)]
        scheme = "https" if ssl_context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._servers[0].server_port}"
        self.cdn_url = f"{scheme}://localhost:{self._servers[1].server_port}"

    def _start(self, host: str, ssl_context):
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub, Handler.host = hub, host
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if ssl_context:
            server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self) -> None:
        self.release.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, file: str, **what) -> None:
        self.faults.setdefault(file, []).append(Fault(**what))

    def gets(self, file: str) -> list[Seen]:
        """The requests for a file's bytes that reached whoever has them."""
        host = "cdn" if file.endswith(LARGE) else "hub"
        return [seen for seen in self.seen
                if seen.method == "GET" and seen.host == host and seen.path.split("?")[0].endswith("/" + file)
                and ("/resolve/" in seen.path or host == "cdn")]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    host: str

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        self.hub.seen.append(Seen(self.host, self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        path = urllib.parse.urlsplit(self.path).path
        if self.host == "cdn":
            repo, commit, file = path.removeprefix("/cdn/").split("/", 2)
            return self._send_file(file, self.hub.repos[repo.replace("~", "/")].commits[commit][file])
        if match := re.fullmatch(r"/api/models/(.+)/(revision|tree)/([^/]+)", path):
            return self._api(match[1], match[2], urllib.parse.unquote(match[3]))
        if match := re.fullmatch(r"/(.+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(match[1], urllib.parse.unquote(match[2]), urllib.parse.unquote(match[3]))
        self._send(404, b"nothing here")

    def _send(self, status: int, body: bytes = b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _repo(self, name: str) -> Repo | None:
        """The repository, or None after an answer that says why not."""
        if name in self.hub.renamed:
            self._send(307, Location=self.path.replace(name, self.hub.renamed[name], 1))
            return None
        repo = self.hub.repos.get(name)
        sent = self.headers.get("Authorization", "")
        if repo is None or (repo.token and not repo.gated and sent != f"Bearer {repo.token}"):
            self._send(401 if not sent else 404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.refs.get(revision, revision)
        if commit not in repo.commits:
            self._send(404, X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev id: {revision}")
            return None
        return commit

    def _api(self, name: str, what: str, revision: str):
        fault = self._fault("api")
        if fault.status:
            return self._send(fault.status)
        repo = self._repo(name)
        commit = repo and self._commit(repo, revision)
        if not commit:
            return
        files = repo.commits[commit]
        if what == "revision":
            answer = {"_id": "0", "id": name, "modelId": name, "sha": commit, "private": bool(repo.token),
                      "gated": "auto" if repo.gated else False, "tags": [], "downloads": 0, "likes": 0,
                      "siblings": [{"rfilename": file} for file in sorted(files)]}
        else:
            answer = []
            for file, content in sorted(files.items()):
                entry = {"type": "file", "path": file, "size": len(content),
                         "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
                if file.endswith(LARGE):
                    entry["lfs"] = {"oid": etag_of(file, content), "size": len(content), "pointerSize": 130}
                answer.append(entry)
        self._send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def _resolve(self, name: str, revision: str, file: str):
        repo = self._repo(name)
        commit = repo and self._commit(repo, revision)
        if not commit:
            return
        if repo.gated and self.headers.get("Authorization") != f"Bearer {repo.token}":
            return self._send(403 if "Authorization" in self.headers else 401, X_Error_Code="GatedRepo",
                              X_Error_Message=f"Access to model {name} is restricted.")
        content = repo.commits[commit].get(file)
        if content is None:
            return self._send(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        if not file.endswith(LARGE):
            return self._send_file(file, content, X_Repo_Commit=commit)
        if self.command == "HEAD" and (status := self._fault(file, head=True).status):
            return self._send(status)
        location = f"{self.hub.cdn_url}/cdn/{name.replace('/', '~')}/{commit}/{file}?Signature=secret"
        size = self.hub.claimed_sizes.get(file, len(content))
        self._send(302, b"Found. Redirecting", Location=location, X_Repo_Commit=commit, ETag='"of-the-redirect"',
                   X_Linked_Etag=f'"{etag_of(file, content)}"', X_Linked_Size=str(size))

    def _fault(self, file: str, head: bool = False) -> Fault:
        waiting = self.hub.faults.get(file, [])
        for i, fault in enumerate(waiting):
            if fault.head == head:
                return waiting.pop(i)
        return Fault()

    def _send_file(self, file: str, content: bytes, **headers):
        fault = self._fault(file, head=self.command == "HEAD")
        if fault.status:
            return self._send(fault.status)
        etag, size, begin = etag_of(file, content), len(content), 0
        if fault.flip:
            content = content[:size // 2] + bytes([content[size // 2] ^ 1]) + content[size // 2 + 1:]
        if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and not fault.ignore_range:
            begin = int(match[1])
            if begin >= size:
                return self._send(416, Content_Range=f"bytes */{size}")
        self.send_response(206 if begin else 200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - begin))
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = min((at for at in (fault.cut_at, fault.stall_at) if at >= 0), default=size)
        self.wfile.write(content[begin:max(begin, stop)])
        self.wfile.flush()
        if fault.stall_at >= 0:
            self.hub.release.wait(60)
            self.wfile.write(content[max(begin, stop):])
        if fault.cut_at >= 0:
            self.close_connection = True
