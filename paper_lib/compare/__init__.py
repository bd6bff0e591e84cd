"""Your checkpoints: any two models, matched, measured and placed among the study's runs."""
