"""What the README promises, run as it stands there."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_code_of_the_readme_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    assert "FineTunedClassifier" in code
    names = {}
    exec(code, names)
    assert list(names["search"].predict(["the rubbish was not collected"])) == ["waste"]


def test_the_readme_has_two_commands_of_one_line_each():
    blocks = re.findall(r"```sh\n(.*?)\n```", README, flags=re.DOTALL)
    assert [block.count("\n") for block in blocks] == [0, 0]
    assert "python -m sktransfer.demo" in blocks[0]
    assert "python -m pytest" in blocks[1]


def test_every_link_of_the_readme_leads_to_a_file():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).is_file(), target
