"""Who runs the shards of a stage: LAUNCHER in the environment, `local`, `slurm` or `ray`. It is
never tracked, since the parts are the same whoever makes them.

A launcher is called with the folder of the jobs and the numbers of those to run. It returns when
they have ended, well or not; what is missing then has failed. Each runs `python -m potstill shard
FOLDER NUMBER` in the task's folder, with its output in FOLDER/NUMBER.log. A shard that asks the
teacher gets its key, in the environment alone, and may take in what is under way when it is
stopped.
"""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill.core.errors import UserError
from potstill.core.project import ROOT

Launcher = Callable[[Path, list[int], bool], None]
KEY = "TEACHER_API_KEY"


def chosen() -> Launcher:
    """The launcher that the environment names. Raises UserError when it names another, when WORKERS
    is no number, and when the launcher is not installed here."""
    name = os.environ.get("LAUNCHER", "").strip() or "local"
    if name not in LAUNCHERS:
        listed = ", ".join(LAUNCHERS)
        raise UserError(f"LAUNCHER in the environment is {name!r}, expected one of {listed}")
    if not (workers() or "1").isdecimal() or workers() == "0":
        raise UserError(f"WORKERS in the environment is {workers()!r}, expected a number from 1 up")
    if name == "slurm" and shutil.which("sbatch") is None:
        raise UserError("LAUNCHER is slurm, but there is no sbatch here: run on a login node")
    if name == "ray":
        _ray()
    return LAUNCHERS[name]


def at_once(count: int) -> int:
    """How many of so many shards run at the same time, at most."""
    return min(count, _places(_gpus())) if is_here() else count


def is_here() -> bool:
    """Whether a single shard may as well be answered in this process."""
    return chosen() is local


def workers() -> str:
    """WORKERS of the environment; nothing where it is not set."""
    return os.environ.get("WORKERS", "").strip()


def last_words(log: Path) -> str:
    """The line of a shard's log that says why it failed."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it was ended, or never began"])[-1][:300]


def local(folder: Path, numbers: list[int], asks: bool = False) -> None:
    """A process for each GPU, or WORKERS of them, one shard after the other. After a failure no
    more are begun."""
    gpus = _gpus()
    places = range(_places(gpus))
    _run(folder, numbers, asks, [gpus[slot % len(gpus)] if gpus else "" for slot in places], [])


def _run(folder: Path, numbers: list[int], asks: bool, free: list[str], before: list[str]) -> None:
    """Runs the shards' commands, each after the words `before`, as many at once as there are `free`
    GPUs (or ""). Those that ask are stopped with one signal, and waited for; others are killed."""
    todo, failed = list(numbers), False
    busy: dict[subprocess.Popen[bytes], str] = {}
    try:
        while busy or (todo and not failed):
            while todo and free and not failed:
                gpu = free.pop(0)
                own = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
                busy[_begin(folder, todo.pop(0), own, asks, before)] = gpu
            time.sleep(0.05)
            for child in [child for child in busy if child.poll() is not None]:
                failed = failed or child.returncode != 0
                free.append(busy.pop(child))
    finally:
        try:
            for child in busy if asks else ():
                child.terminate()
            for child in busy if asks else ():
                child.wait()
        finally:  # a second signal ends that at once
            for child in busy:
                child.kill()
                child.wait()


def slurm(folder: Path, numbers: list[int], asks: bool = False) -> None:
    """A job array, which is waited for. What a shard needs of the cluster is said in sbatch's own
    variables: SBATCH_PARTITION, SBATCH_GRES, SBATCH_TIMELIMIT. Shards that ask are a job each, by
    srun: it passes the environment from memory to memory, while sbatch has the cluster keep it in a
    file; and it passes on the signal that stops them."""
    if asks:
        srun = ["srun", "--ntasks=1", "--quiet", f"--job-name={folder.name}"]
        _run(folder, numbers, asks, [""] * len(numbers), srun)
        return
    script = f"exec {shlex.join(command(folder))} $SLURM_ARRAY_TASK_ID"
    name = f"{folder.name}-{os.urandom(4).hex()}"
    options = [f"--array={','.join(map(str, numbers))}", f"--output={folder.resolve()}/%a.log"]
    options += ["--wait", f"--job-name={name}", f"--wrap={script}"]
    try:
        done = subprocess.run(["sbatch", *options], env=_env(asks), capture_output=True, text=True)
    except BaseException:  # stopped: its number is not known before its end
        subprocess.run(["scancel", f"--name={name}"])
        raise
    if done.returncode and "Submitted" not in done.stdout:
        raise UserError(f"sbatch refused the shards: {' '.join(done.stderr.split())}")


def ray(folder: Path, numbers: list[int], asks: bool = False) -> None:
    """A Ray task for each shard, in the cluster of RAY_ADDRESS or of this machine. Ray begins a
    task again whose node was lost."""
    cluster = _ray()
    try:
        cluster.init(address=os.environ.get("RAY_ADDRESS") or "auto", log_to_driver=False)
    except ConnectionError as error:
        why = str(error).splitlines()[0]
        found = f"LAUNCHER is ray, but there is no cluster ({why})"
        raise UserError(f"{found}: `ray start --head`") from None
    try:
        needs = {"num_gpus": 1} if cluster.cluster_resources().get("GPU") else {"num_cpus": 1}
        words, where, env = command(folder), str(Path.cwd()), _env(False)
        secret = {KEY: os.environ[KEY]} if asks and KEY in os.environ else {}

        # Pickled whole: Ray's workers need not know this module
        def task(number: int, secret: dict[str, str]) -> int:
            import os
            import subprocess

            log = os.path.join(where, str(folder), f"{number}.log")  # noqa: PTH118
            gpus = {k: v for k, v in os.environ.items() if k == "CUDA_VISIBLE_DEVICES"}
            shard, both = [*words, str(number)], subprocess.STDOUT
            with open(log, "wb") as out:  # noqa: PTH123
                return subprocess.call(
                    shard, stdout=out, stderr=both, cwd=where, env=env | secret | gpus
                )

        remote = cluster.remote(**needs)(task)
        for done in [remote.remote(number, secret) for number in numbers]:
            try:
                cluster.get(done)
            except cluster.exceptions.RayError as error:  # of one shard: the others go on
                print(f"ray: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
    finally:
        cluster.shutdown()


LAUNCHERS: dict[str, Launcher] = {"local": local, "slurm": slurm, "ray": ray}


def command(folder: Path) -> list[str]:
    """The command of a shard, but for its number."""
    return [sys.executable, "-m", "potstill", "shard", str(folder)]


def _begin(
    folder: Path, number: int, own: dict[str, str], asks: bool, before: list[str]
) -> "subprocess.Popen[bytes]":
    """A process for a shard that ends with this one, however that ends."""
    prctl, ends_with_parent = ctypes.CDLL(None).prctl, 1
    words, env = [*before, *command(folder), str(number)], _env(asks) | own
    if before:  # srun's names of what is said to sbatch
        env |= {f"SLURM_{k[7:]}": v for k, v in env.items() if k.startswith("SBATCH_")}
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "env": env}
    how["start_new_session"] = asks  # Ctrl-C is for the stage, which stops it with one signal
    how["preexec_fn"] = lambda: prctl(ends_with_parent, signal.SIGKILL)
    with (folder / f"{number}.log").open("wb") as out:
        return subprocess.Popen(words, stdout=out, **how)


def _env(asks: bool) -> dict[str, str]:
    """The environment of a shard: ours, without the teacher's key where it does not ask."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT), *(path for path in paths if Path(path).resolve() != ROOT)]
    ours = {k: v for k, v in os.environ.items() if asks or k != KEY}
    return ours | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _places(gpus: list[str]) -> int:
    """How many shards run at once on this machine."""
    return int(workers() or len(gpus) or 1)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one.strip() for one in named.split(",") if one.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(n) for n, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def _ray() -> Any:
    """Ray, which is no part of the environment. Raises UserError when it is not installed."""
    try:
        import ray
    except ImportError as error:
        how = "`.venv/bin/uv pip install ray`, here and on every node"
        raise UserError(f"LAUNCHER is ray, which is not installed ({error}): {how}") from None
    return ray
