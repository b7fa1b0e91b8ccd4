"""Puts a pod where most of the data that it reads already is.

A pod says what it reads, in GiB:      data.example.com/reads: "genomes=80,index=5"
and what it cannot do without:         data.example.com/requires: "index"
A node says what lies on its disks:    data.example.com/has: "genomes,images"
All three are annotations.
"""

READS = "data.example.com/reads"
REQUIRES = "data.example.com/requires"
HAS = "data.example.com/has"


def annotation(pod, name):
    return (pod["metadata"].get("annotations") or {}).get(name, "")


def names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def reads(pod):
    """dataset -> GiB"""
    pairs = [part.partition("=") for part in names(annotation(pod, READS))]
    return {name: float(size or 1) for name, _, size in pairs}


class DataLocality:
    def filter(self, pod, node):
        there = names(node.annotations.get(HAS, ""))
        missing = [name for name in names(annotation(pod, REQUIRES)) if name not in there]
        if missing:
            return f"node(s) didn't have the data {', '.join(missing)}"
        return None

    def score(self, pod, node):
        wanted = reads(pod)
        there = names(node.annotations.get(HAS, ""))
        local = sum(size for name, size in wanted.items() if name in there)
        return int(100 * local / sum(wanted.values())) if wanted else 0
