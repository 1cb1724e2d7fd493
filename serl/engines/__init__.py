"""What is heavy: vLLM, DeepSpeed, transformers, each behind one door."""
