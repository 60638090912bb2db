import sktransfer

project = "sktransfer"
author = "The sktransfer developers"
copyright = "2026, the sktransfer developers"
release = version = sktransfer.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Transfer learning as scikit-learn estimators", "page_width": "1080px"}
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
nitpicky = False
