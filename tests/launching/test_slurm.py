"""The batch script that `trainkit slurm` writes, run by bash with stand-ins for Slurm's programs, and what it refuses.

tests/slurm_on_one_machine.py submits the script to a real Slurm.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result
from clients.toy import Line
from clients.toy_run import TOY

from trainkit.cli import cli
from trainkit.errors import RecipeError
from trainkit.launching.slurm_script import SlurmJob, quoted_for_sbatch
from trainkit.launching.slurm_time import read_time, write_time

JOB = SlurmJob(
    name="it's $one",
    recipes=[Path("my $HOME 'r'.toml"), Path("-b.toml")],
    sets=['run.name="a b"', "run.epochs=3"],
    folder=Path("/"),
    python=Path("/usr/bin/python3"),
    seconds=3600,
)
SRUN = """#!/bin/bash
printf '%s\\n' "$@" >srun.txt
[ -z "${ENDED_BY:-}" ] || kill -"$ENDED_BY" $PPID
exit "$SRUN_CODE"
"""
SCONTROL = """#!/bin/bash
case $1 in show) printf "$HOSTS" ;; *) printf '%s\\n' "$*" >>scontrol.txt ;; esac
"""


def run_script(folder: Path, job: SlurmJob, code: int, **variables: str) -> int:
    """Run a job's script in a folder, where `srun` ends with a code, and return the script's own."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SRUN_CODE": str(code),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
        "SLURM_CPUS_PER_TASK": "1",
    }
    script = attrs.evolve(job, folder=folder).script()
    # Signals that this process ignores, as after a test of the program's end, cannot be trapped by its children.
    begin = ["env", "--default-signal=TERM,USR1", "bash", "-c"]
    return subprocess.run([*begin, script], env=environment | variables, check=False, capture_output=True).returncode


def test_names_with_blanks_quotes_and_dollars_reach_the_command_line_as_they_are(tmp_path: Path) -> None:
    run_script(tmp_path, JOB, 0)
    words = (tmp_path / "srun.txt").read_text().splitlines()
    begin = words.index("trainkit") + 1
    assert words[begin - 4 : begin] == ["/usr/bin/python3", "-P", "-m", "trainkit"]
    assert words[begin:] == [
        *("run", "my $HOME 'r'.toml", "./-b.toml"),
        *("--set", 'run.name="a b"', "--set", "run.epochs=3", "--continue"),
    ]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
def test_the_job_has_the_exit_code_of_the_training_and_is_requeued_for_75_alone(tmp_path: Path, code: int) -> None:
    assert run_script(tmp_path, JOB, code) == code
    asked = tmp_path / "scontrol.txt"
    assert (asked.read_text() if asked.exists() else "") == ("requeue 7\n" if code == 75 else "")


def test_a_job_whose_training_was_signalled_before_it_could_act_on_it_is_requeued(tmp_path: Path) -> None:
    assert run_script(tmp_path, JOB, 128 + signal.SIGUSR1) == 75
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


def test_a_cancelled_job_and_one_that_was_requeued_often_are_not_requeued(tmp_path: Path) -> None:
    assert run_script(tmp_path, JOB, 75, ENDED_BY="TERM") == 75
    assert run_script(tmp_path, JOB, 75, SLURM_RESTART_COUNT="100") == 75
    assert not (tmp_path / "scontrol.txt").exists()


def test_the_signal_before_the_limit_does_not_end_the_script(tmp_path: Path) -> None:
    assert run_script(tmp_path, JOB, 75, ENDED_BY="USR1") == 75
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


def test_launchers_of_several_nodes_meet_at_the_first_one(tmp_path: Path) -> None:
    several = attrs.evolve(JOB, nodes="1-2", gpus_per_node=4, processes_per_node=4)
    run_script(tmp_path, several, 0, SLURM_NNODES="2", SLURM_JOB_NAME="a b", HOSTS="gpu7\ngpu9")
    words = (tmp_path / "srun.txt").read_text().splitlines()
    assert words[words.index("--continue") + 1 :] == [
        *(
            "--processes",
            "4",
            "--restarts",
            "0",
            "--logs",
            "a b-7.processes",
            "--nodes",
            "2",
            "--meet-at",
            "gpu7:20007",
        ),
    ]
    one = attrs.evolve(JOB, gpus_per_node=4, processes_per_node=4)
    run_script(tmp_path, one, 0, SLURM_JOB_NAME="a")
    assert "--nodes" not in (tmp_path / "srun.txt").read_text()


def test_each_fold_is_a_job_of_an_array_that_is_requeued_by_itself(tmp_path: Path) -> None:
    job = attrs.evolve(JOB, folds=5, processes_per_node=2)
    of_array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4", "SLURM_JOB_NAME": "a"}
    assert run_script(tmp_path, job, 75, **of_array) == 75
    words = (tmp_path / "srun.txt").read_text().splitlines()
    assert words[words.index("--continue") + 1 :] == [
        *("--folds", "5", "--fold", "4", "--processes", "2", "--restarts", "0", "--logs", "a-7_4.processes")
    ]
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7_4\n"  # 7 would be all of them
    assert "#SBATCH --array=0-4\n" in job.script()


def test_directives_stand_before_the_first_command_and_hold_what_was_asked_for() -> None:
    job = attrs.evolve(
        JOB, gpus_per_node=2, cpus_per_process=6, memory="64G", partition="gpu", directives=["--qos=a b", "--exclusive"]
    )
    before = job.script().partition("set -euo pipefail")[0].splitlines()
    assert {line.removeprefix("#SBATCH ") for line in before if line.startswith("#SBATCH")} == {
        *('--job-name="it\'s $one"', "--partition=gpu", "--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=2"),
        *("--cpus-per-task=6", "--mem=64G", "--time=01:00:00", "--signal=USR1@120", "--output=%x-%j.log"),
        *("--open-mode=append", "--requeue", '--qos="a b"', "--exclusive"),
    }


def test_bash_finds_no_mistake_of_syntax_in_the_script() -> None:
    done = subprocess.run(["bash", "-n"], input=JOB.script(), text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"signal_seconds": 3600}, "leaves nothing of a time limit of 01:00:00"),
        ({"memory": "64 GB"}, "no size"),
        ({"nodes": "3-2"}, "range"),
        ({"directives": ["qos=long"]}, "no option of sbatch"),
        ({"sets": ["a=1\n#SBATCH --x"]}, "line break"),
    ],
)
def test_a_job_that_is_not_possible_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        attrs.evolve(JOB, **change)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("04:00:00", 14400), ("1-00", 86400), ("1-02:30", 95400), ("2-00:00:30", 172860), ("240", 14400)),
        *(("4h", 14400), ("1d12h", 129600), ("90s", 120), ("48:00:00", 172800)),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert read_time(text) == seconds
    assert read_time(write_time(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "04:00", "1:2:3:4", "4 h", "01:60:00", "1-24:00", "-5", "tomorrow", "UNLIMITED"]
)
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"no time limit|hours and minutes"):
        read_time(text)


def test_a_value_of_a_directive_is_quoted_as_sbatch_reads_it() -> None:
    assert quoted_for_sbatch("a_b-1.log") == "a_b-1.log"
    assert quoted_for_sbatch('a "b" \\ #c') == r'"a \"b\" \\ #c"'


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text(TOY)
    return "toy.toml"


def ask(*words: str) -> Result:
    return CliRunner().invoke(cli, ["slurm", *words])


def test_a_recipe_with_a_mistake_is_not_queued(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainkit.launching.sbatch.submit", lambda script: pytest.fail("submitted"))
    failed = ask(recipe, "--time", "4h", "--set", "run.epocs=3", "--submit")
    assert isinstance(failed.exception, RecipeError)
    assert 'did you mean "epochs"?' in str(failed.exception)


def test_a_recipe_for_the_cpu_asks_for_no_gpu_and_standard_output_is_the_script_alone(recipe: str) -> None:
    done = ask(recipe, "--time", "4h")
    assert done.exit_code == 0
    assert done.stdout.startswith("#!/bin/bash\n")
    assert "--gpus" not in done.stdout
    assert "job toy: 1 node with no GPU, 1 CPU; 1 process; 04:00:00 at a time" in done.stderr


def test_a_recipe_that_names_a_gpu_is_not_queued_without_one(recipe: str) -> None:
    failed = ask(recipe, "--time", "4h", "--set", 'run.device="cuda"', "--gpus-per-node", "0")
    assert "the job has no GPU" in str(failed.exception)


def test_folds_are_checked_before_they_are_queued_and_have_logs_of_their_own(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cannot be divided into folds" in str(ask(recipe, "--time", "4h", "--folds", "5").exception)
    monkeypatch.setattr(Line, "settings_of_fold", lambda self, fold, number: {"batch_size": 8 + fold})
    done = ask(recipe, "--time", "4h", "--folds", "5")
    assert "#SBATCH --output=%x-%A_%a.log\n" in done.stdout
    assert "job toy: 5 jobs, one for each fold, each with 1 node with no GPU" in done.stderr
    assert "#SBATCH --output=mine\n" in ask(recipe, "--time", "4h", "--folds", "5", "--log", "mine").stdout


def test_what_slurm_says_is_passed_on(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "sbatch"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program.write_text("#!/bin/bash\ncat >queued.sh\necho '42;cluster'\n")
    program.chmod(0o755)
    done = ask(recipe, "--time", "4h", "--submit")
    assert done.stdout == "42\n"
    assert Path("queued.sh").read_text().startswith("#!/bin/bash\n")
    program.write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: x' >&2\nexit 1\n")
    assert "invalid partition specified: x" in str(ask(recipe, "--time", "4h", "--submit").exception)
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch is not on this machine" in str(ask(recipe, "--time", "4h", "--submit").exception)
