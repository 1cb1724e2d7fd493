"""Arguments of vLLM's own in a configuration: known names pass, others are refused with a remedy, and vllm is not imported for it."""

import subprocess
import sys

import pytest

from serl.engines import arguments
from serl.engines.arguments import OF_VLLM, OF_ZERO, check_vllm, check_zero
from tests.conftest import ROOT


def test_the_names_are_those_of_the_installed_vllm_and_reading_them_imports_nothing():
    code = (
        "import sys; from serl.engines.arguments import _fields; a = _fields('vllm', 'engine/arg_utils.py', 'EngineArgs');"
        " print('vllm' in sys.modules or 'torch' in sys.modules, {'max_num_seqs', 'quantization'} <= a, len(a) > 100)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"], done.stderr


def test_what_vllm_knows_passes():
    check_vllm({"max_num_seqs": 512, "max_num_batched_tokens": 16384, "enable_chunked_prefill": True})


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"engine\.extra\.max_num_sequences: vLLM has no such .* max_num_seqs"
    ):
        check_vllm({"max_num_sequences": 512})


def test_what_the_suite_sets_itself_is_refused_with_the_setting():
    with pytest.raises(
        ValueError, match=r"engine\.extra\.tensor_parallel_size: is set by engine\.tensor_parallel"
    ):
        check_vllm({"tensor_parallel_size": 2})
    with pytest.raises(ValueError, match="leave it out"):
        check_vllm({"logprobs_mode": "raw_logprobs"})


def test_every_name_that_is_ours_is_one_of_vllms():
    """Else the user's word and ours would both reach vLLM under different names."""
    assert set(OF_VLLM) <= arguments._fields("vllm", "engine/arg_utils.py", "EngineArgs")
    assert set(OF_ZERO) <= arguments._fields("deepspeed", "runtime/zero/config.py", "DeepSpeedZeroConfig")


def test_without_vllm_nothing_is_judged_but_what_is_ours(monkeypatch):
    monkeypatch.setattr(arguments, "_fields", lambda *_: frozenset())
    check_vllm({"whatever": 1})
    with pytest.raises(ValueError):
        check_vllm({"seed": 1})


def test_keys_of_deepspeeds_zero_pass_likewise_and_reach_it():
    check_zero({"reduce_bucket_size": 2**20, "zero_hpz_partition_size": 2})
    with pytest.raises(ValueError, match=r"deepspeed\.reduce_bucket: .* nearest: reduce_bucket_size"):
        check_zero({"reduce_bucket": 1})
    with pytest.raises(ValueError, match=r"deepspeed\.stage: is set by train\.zero"):
        check_zero({"stage": 3})
