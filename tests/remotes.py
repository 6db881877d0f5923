"""What a team shares through, all on loopback: a folder, a real sshd and an S3-compatible server,
with the lines of .dvc/config that name it; and a network file system that several machines see."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

FUSE = Path("/dev/fuse")
# As NFS: a file or folder that is opened is seen as it is, times and sizes may be 3 s old
CACHES = "dir_cache=no,attr_timeout=3,entry_timeout=0"
AWS = {
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def sshd(home: Path) -> Iterator[tuple[int, Path]]:
    """A real sshd on loopback: its port, and the key that it accepts; $HOME is `home`. Without one
    the test is skipped, or fails in CI."""
    found = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no sshd: on Debian, `apt-get install openssh-server`"
        )
    own = home / "ssh"
    own.mkdir(mode=0o700)
    for name in ("host", "client"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own / name], check=True
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (own / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {own}/host\n"
        f"AuthorizedKeysFile {own}/client.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd separates its privileges
    known = home / ".ssh/known_hosts"
    known.parent.mkdir(mode=0o700)
    known.write_text(f"[127.0.0.1]:{port} {' '.join((own / 'host.pub').read_text().split()[:2])}\n")
    server = subprocess.Popen([found, "-D", "-e", "-f", own / "config"], stderr=subprocess.DEVNULL)
    try:
        _await(port)
        yield port, own / "client"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def machine(folder: Path) -> Iterator[list[str]]:
    """Words that have the command after them run as on a machine of its own: it sees `folder` under
    the same path by SFTP, through caches of its own, and no other machine's locks. Where that
    cannot be, the test is skipped."""
    server, mounts = "/usr/lib/openssh/sftp-server", ["unshare", "--mount", "true"]
    installed = all(map(shutil.which, ("sshfs", server))) and FUSE.exists()
    if not installed or os.geteuid() or subprocess.run(mounts).returncode:
        pytest.skip("needs root that may mount, and Debian's sshfs and openssh-sftp-server")
    with tempfile.TemporaryDirectory() as scratch:
        served, serve = Path(scratch, "served"), Path(scratch, "serve")
        served.mkdir()
        serve.write_text(f"#!/bin/sh\nexec {server}\n")
        serve.chmod(0o700)
        mount = f"mount --bind {folder} {served} && "
        mount += f"exec sshfs -f -o ssh_command={serve},{CACHES} here:{served} {folder}"
        command = ["unshare", "--mount", "sh", "-c", mount]
        mounted = subprocess.Popen(command, cwd="/")  # else its server waits for itself
        try:
            for _ in range(200):
                if " fuse.sshfs " in Path(f"/proc/{mounted.pid}/mountinfo").read_text():
                    break
                assert mounted.poll() is None
                time.sleep(0.05)
            yield ["nsenter", f"--target={mounted.pid}", "--mount", f"--wdns={folder}"]
        finally:  # all that runs there
            own = Path(f"/proc/{mounted.pid}/ns/mnt").readlink()
            for there in Path("/proc").glob("[0-9]*/ns/mnt"):
                with suppress(OSError):
                    if there.readlink() == own:
                        os.kill(int(there.parts[2]), signal.SIGKILL)
            mounted.wait(10)


@contextmanager
def s3() -> Iterator[str]:
    """The URL of an S3-compatible server on loopback with a bucket `box`. It has a process of its
    own: in that of a test, its web framework does not answer once vLLM was loaded there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        put(f"http://127.0.0.1:{port}/box", b"")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def put(url: str, content: bytes) -> None:
    """Makes a bucket, or an object, of the S3-compatible server."""
    kind = {"Content-Type": "application/octet-stream"}  # else it is read as a form
    urllib.request.urlopen(urllib.request.Request(url, content, kind, method="PUT")).close()


def user() -> str:
    """Who logs in to the sshd."""
    return os.environ.get("USER") or getpass.getuser()


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
