"""The demo: ``python -m sktransfer.demo``.

Compares the two networks shipped with the package with the usual scikit-learn way, on few labels: texts to a city's
service desk, written for this demo (``texts.csv``), and scikit-learn's digits. It needs no network connection and no
data beside the package and scikit-learn. All figures that it prints are measured while it runs.
"""
