"""Measuring: metrics, intervals, calibration and baselines, with numpy, scipy and scikit-learn alone."""
