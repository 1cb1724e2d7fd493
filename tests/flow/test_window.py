"""A chain larger than what Slurm lets one user have in its queue: limits of users, accounts and QOS on the real, full lab."""

import getpass
import os
import shutil
import subprocess

import pytest
from lab import new_trial, running_lab, slurm, wait_until

from jobs.chain.slurm import submit_missing
from jobs.chain.window import RELAY
from jobs.plan.cluster import load_cluster
from jobs.runs.queue import Journal

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        any(shutil.which(n, path=SBIN) is None for n in ("slurmctld", "slurmdbd", "munged", "mariadbd")),
        reason="limits need accounting; on Debian: apt-get install slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core",
    ),
]
QUICK = ("export SERL_TEST_CALL_S=0.1 SERL_TEST_STEP_S=0.05 SERL_TEST_LOAD_S=0",)
ME = getpass.getuser()
# Each way that a site has to say so, and of how many rounds the chain is: six jobs each.
LIMITS = {
    "user": (("user", ME), "MaxSubmitJobs", 2),
    "account": (("account", "serl"), "GrpSubmitJobs", 1),
    "qos": (("qos", "normal"), "MaxSubmitJobsPerUser", 1),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with running_lab(
        tmp_path_factory.mktemp("lab"), "--full", "--set", "AccountingStorageEnforce=associations,limits,qos"
    ) as lab:
        slurm("sacctmgr", "-i", "add", "account", "serl")
        slurm("sacctmgr", "-i", "add", "user", ME, "account=serl")
        slurm("sacctmgr", "-i", "modify", "user", ME, "set", "DefaultAccount=serl")
        yield lab


@pytest.fixture(params=LIMITS)
def rounds(request, lab):
    """Of a chain, while four jobs are allowed in the queue."""
    whose, key, rounds = LIMITS[request.param]
    slurm("sacctmgr", "-i", "modify", *whose, "set", f"{key}=4")
    yield rounds
    slurm("scancel", "--user", ME)
    slurm("sacctmgr", "-i", "modify", *whose, "set", f"{key}=-1")


def submitted(t) -> dict[tuple[str, int], int]:
    """How often each shard was submitted, and stayed so."""
    times: dict[tuple[str, int], int] = {}
    for s in Journal(t.run.root).submissions():
        for index in s.shards if s.id else ():
            times[s.job, index] = times.get((s.job, index), 0) + 1
    return times


def relay_of(t) -> str:
    (id,) = {s.id for s in Journal(t.run.root).submissions() if s.job == RELAY and s.id}
    return id


def test_a_chain_larger_than_the_limit_goes_on_by_itself(rounds, tmp_path):
    """Six or twelve jobs where four are allowed; in the longer chain the relay is killed once in the middle of what it does."""
    t = new_trial(tmp_path / "t", config={"rounds": rounds}, setup=QUICK)
    new = submit_missing(t.run, load_cluster(str(t.cluster_file)))
    assert new[-1].job == RELAY and len(t.queue()) == 4
    assert sum(len(s.shards) for s in new) == 3
    if rounds > 1:
        wait_until(
            lambda: any(q.id == relay_of(t) for q in t.queue("RUNNING")), "the relay to run", t.explain
        )
        subprocess.run(
            ["scontrol", "requeue", relay_of(t)], check=False, capture_output=True
        )  # refused if it has just left
    content = t.finish()
    assert set(submitted(t).values()) == {1} and len(submitted(t)) == len(content) == 6 * rounds
    assert set(t.noted("end").values()) == {1}
