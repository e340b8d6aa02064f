"""Writes the batch script of a Slurm job that trains recipes, to be read by a person before it is submitted.

Slurm gives a job a few hours at a time. Before they are over it signals the training, which saves and ends with exit
code 75, and the script puts the job back into the queue, where the same command continues the run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap

import attrs

from trainkit.errors import RecipeError
from trainkit.launching.slurm_time import write_time

_MEMORY = re.compile(r"\d+[KMGT]?")
_NODES = re.compile(r"([1-9]\d*)(?:-([1-9]\d*))?")

MOST_SIGNAL_SECONDS = 65535
"""How long before the limit Slurm can send a signal."""


@attrs.frozen
class SlurmJob:
    """What a job needs from Slurm, and what it runs.

    On each node, one task of Slurm starts all processes.

    Attributes:
        name: Name of the job, and of its log.
        recipes: The recipes, relative to ``folder``.
        sets: The values of ``--set``.
        folder: The working directory, absolute.
        python: The Python that has trainkit.
        seconds: The time limit of one portion.
        nodes: Number of nodes, or the least and the most: "2", "1-4".
        gpus_per_node: GPUs of each node; 0: none.
        processes_per_node: Processes that train on each node.
        restarts: How often all processes are started again within the job if one dies.
        cpus_per_process: CPUs of each process.
        memory: Memory of each node as Slurm writes it ("64G"); "": the cluster's default.
        partition: Partition; "": the cluster's default.
        account: Account; "": the user's default.
        directives: Further options of sbatch, such as "--qos=long".
        setup: Lines of shell to run before the training, such as "module load cuda".
        signal_seconds: How long before the time limit Slurm signals the training.
        most_requeues: How often the job goes back into the queue by itself.
        folds: Number of folds of a cross-validation, each of which is a job of its own of an array; 0: there is none.
        log: The log, with Slurm's patterns: "%x" is the name, "%j" the number of the job.
        command: The command line that writes the script.
    """

    name: str
    recipes: Sequence[Path]
    sets: Sequence[str]
    folder: Path
    python: Path
    seconds: int
    nodes: str = "1"
    gpus_per_node: int = 0
    processes_per_node: int = 1
    restarts: int = 0
    cpus_per_process: int = 1
    memory: str = ""
    partition: str = ""
    account: str = ""
    directives: Sequence[str] = ()
    setup: Sequence[str] = ()
    signal_seconds: int = 120
    most_requeues: int = 100
    folds: int = 0
    log: str = "%x-%j.log"
    command: str = "trainkit slurm"

    def __attrs_post_init__(self) -> None:
        if _NODES.fullmatch(self.nodes) is None or self.num_nodes[0] > self.num_nodes[1]:
            raise RecipeError(f"--nodes {self.nodes} is neither a number nor a range such as 1-4")
        if self.memory and _MEMORY.fullmatch(self.memory) is None:
            raise RecipeError(
                f'--mem {self.memory} is no size: write for example 64G (of each node), with "K", "M" or "T"'
            )
        if not 1 <= self.signal_seconds <= MOST_SIGNAL_SECONDS:
            raise RecipeError(
                f"--signal-before {self.signal_seconds} is not possible: from 1 to {MOST_SIGNAL_SECONDS} seconds"
            )
        if self.signal_seconds >= self.seconds:
            raise RecipeError(
                f"--signal-before {self.signal_seconds} leaves nothing of a time limit of {write_time(self.seconds)}, "
                "so the training would be stopped before it begins"
            )
        for each in self.directives:
            if not each.startswith("-"):
                raise RecipeError(f'--sbatch {each} is no option of sbatch: write for example --sbatch="--qos=long"')
        texts = (self.name, self.partition, self.account, self.log, str(self.folder), *map(str, self.recipes))
        for text in (*texts, *self.sets, *self.directives, *self.setup, str(self.python)):
            if re.search(r"[\n\r\0]", text):
                raise RecipeError(f"{text!r} has a line break, which a batch script cannot hold")

    @property
    def num_nodes(self) -> tuple[int, int]:
        """The least and the most nodes."""
        found = _NODES.fullmatch(self.nodes)
        assert found is not None
        return int(found[1]), int(found[2] or found[1])

    @property
    def has_one_node(self) -> bool:
        """Whether the job gets one node in any case."""
        return self.num_nodes[1] == 1

    @property
    def possible_processes(self) -> list[int]:
        """The numbers of processes that train the run, from the least to the most nodes."""
        least, most = self.num_nodes
        return [nodes * self.processes_per_node for nodes in range(least, most + 1)]

    def in_words(self) -> str:
        """Return what the job needs in one sentence."""
        nodes = f"{self.nodes} node{'s' * (self.nodes != '1')}"
        has = [f"{self.gpus_per_node} GPU{'s' * (self.gpus_per_node != 1)}"] if self.gpus_per_node else ["no GPU"]
        cpus = self.cpus_per_process * self.processes_per_node
        has.append(f"{cpus} CPU{'s' * (cpus != 1)}")
        has += [f"{self.memory} of memory"] if self.memory else []
        count = f"{self.processes_per_node} process{'es' * (self.processes_per_node != 1)}"
        count += " on each" if self.nodes != "1" else ""
        jobs = f"{self.folds} jobs, one for each fold, each with " if self.folds else ""
        return f"{jobs}{nodes} with {', '.join(has)}; {count}; {write_time(self.seconds)} at a time"

    def script(self) -> str:
        """Return the batch script."""
        return "\n".join([*self._head(), *self._directives(), *self._environment(), *self._training(), *self._end()])

    def _head(self) -> Iterator[str]:
        yield "#!/bin/bash"
        yield from _comment(f"Trains {', '.join(map(str, self.recipes))}: {self.in_words()}.")
        yield f"# Written by: {self.command}"
        yield "#"
        yield from _comment(
            f"{self.signal_seconds} s before its time is over, or up to a minute earlier, Slurm sends USR1 to the "
            "training, which finishes its step, saves, and ends with exit code 75. This script then puts the job back "
            "into the queue, and it continues where it was. When everything is finished, the job ends with exit code "
            "0, or with 3 if a result is doubtful; with 1 if a run failed. To submit the script again continues what "
            "is not finished, and trains nothing twice."
        )
        if self.folds:
            yield from _comment("Each fold is a job of its own of an array. The last one to finish makes the ensemble.")
        yield ""

    def _directives(self) -> Iterator[str]:
        cpus = self.cpus_per_process * self.processes_per_node
        options = {
            "job-name": self.name,
            "array": f"0-{self.folds - 1}" if self.folds else "",
            "partition": self.partition,
            "account": self.account,
            "nodes": self.nodes,
            "ntasks-per-node": "1",
            "gpus-per-node": str(self.gpus_per_node or ""),
            "cpus-per-task": str(cpus),
            "mem": self.memory,
            "time": write_time(self.seconds),
            "signal": f"USR1@{self.signal_seconds}",
            "output": self.log,
            "open-mode": "append",
        }
        for name, value in options.items():
            if value:
                yield f"#SBATCH --{name}={quoted_for_sbatch(value)}"
        yield "#SBATCH --requeue"
        for each in self.directives:
            name, equals, value = each.partition("=")
            yield f"#SBATCH {name}{equals}{quoted_for_sbatch(value) if equals else ''}"
        yield ""

    def _environment(self) -> Iterator[str]:
        yield "set -euo pipefail"
        yield f"cd -- {shlex.quote(str(self.folder))}"
        yield f"python={shlex.quote(str(self.python))}  # of the environment that has trainkit"
        yield from self.setup
        # One job of an array has the number of the array too, under which scontrol would requeue all of them.
        yield f"job={'${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID' if self.folds else '$SLURM_JOB_ID'}"
        yield 'echo "job $job, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST: $(date)"'
        yield ""

    def _training(self) -> Iterator[str]:
        yield "# Slurm sends TERM to this script when somebody cancels the job, which then must not come back."
        yield "cancelled=no"
        yield "trap 'cancelled=yes' TERM"
        yield "trap ':' USR1 # only the training acts on it"
        yield ""
        yield "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take it from the job by itself"
        recipes = [f"./{each}" if str(each).startswith("-") else str(each) for each in self.recipes]
        words = ["run", *recipes, *(word for each in self.sets for word in ("--set", each)), "--continue"]
        folds = f'--folds {self.folds} --fold "$SLURM_ARRAY_TASK_ID" ' if self.folds else ""
        several = self.possible_processes[-1] > 1
        if not self.has_one_node:
            yield 'nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")'
            yield "meet_at=${nodes%%$'\\n'*}:$((20000 + SLURM_JOB_ID % 10000)) # on the first node"
            yield "# Where one node ends, the others have ten minutes; then srun ends them."
        yield "code=0"
        yield f"srun --ntasks-per-node=1 {'' if self.has_one_node else '--label --wait=600 '}\\"
        yield '  "$python" -P -m trainkit \\'
        yield f"  {' '.join(map(shlex.quote, words))} {folds}\\"
        if several:
            yield f"  --processes {self.processes_per_node} --restarts {self.restarts} \\"
            yield '  --logs "$SLURM_JOB_NAME-$job.processes" \\'
        if not self.has_one_node:
            yield '  --nodes "$SLURM_NNODES" --meet-at "$meet_at" \\'
        yield "  || code=$?"
        yield '[ "$code" -ne 138 ] || code=75 # USR1 ended Python while it started, so nothing is lost'
        yield ""

    def _end(self) -> Iterator[str]:
        yield 'if [ "$code" -eq 75 ] && [ "$cancelled" = no ]; then # stopped and saved'
        yield f'  if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {self.most_requeues} ]; then'
        yield f'    echo "the job was requeued {self.most_requeues} times; to go on, submit the script again"'
        yield '  elif scontrol requeue "$job"; then'
        yield '    echo "job $job continues when it is its turn again"'
        yield "  else"
        yield '    echo "Slurm does not requeue the job; to go on, submit the script again"'
        yield "  fi"
        yield 'elif [ "$cancelled" = yes ]; then'
        yield '  echo "Slurm ended the job: it was cancelled, or its time was over before the training had saved (then"'
        yield f'  echo "give more than --signal-before {self.signal_seconds}); to go on, submit the script again"'
        yield "fi"
        yield 'exit "$code"'
        yield ""


def _comment(text: str) -> list[str]:
    return wrap(text, 100, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def quoted_for_sbatch(text: str) -> str:
    r"""Return a value for a line of ``#SBATCH``, which sbatch reads by rules of its own, not by those of the shell.

    Example:
        >>> print(quoted_for_sbatch('my "job"'), quoted_for_sbatch("a_b"))
        "my \"job\"" a_b
    """
    if re.fullmatch(r"[\w@%+=:,./\[\]-]+", text, re.ASCII):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
