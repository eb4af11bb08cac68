"""The parts of a row's label."""


def row_of(label: str) -> str:
    """`knowledge.location[form=cloze]` of `knowledge.location[form=cloze] base -> sft`: limits are for any two checkpoints."""
    name, bracket, _ = label.rpartition("]")
    return name + bracket or label.partition(" ")[0]


def finding_of(label: str) -> str:
    """`knowledge.location` of `knowledge.location[form=cloze]`."""
    return row_of(label).partition("[")[0]
