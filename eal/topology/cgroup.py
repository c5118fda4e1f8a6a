# SPDX-License-Identifier: BSD-3-Clause
"""Which CPUs this process may use: its affinity when live, the captured process's cgroup cpuset otherwise."""

from __future__ import annotations

import os

from eal.topology.tree import Tree


def allowed_cpus(tree: Tree) -> frozenset[int] | None:
    """The CPUs a process may use; None where nothing limits it.

    Live, the affinity already is the cgroup's set narrowed by taskset. A capture has no process to ask, so
    the files of the cgroup it ran in are read, as lstopo does with HWLOC_FSROOT.
    """
    if tree.live:
        return frozenset(os.sched_getaffinity(0))
    for name in _cpuset_files(tree):
        listed = tree.numbers(name)
        if listed:
            return listed
    return None


def _cpuset_files(tree: Tree) -> list[str]:
    """Files that may hold the set, best first; at each mount the process's own group, then its parents."""
    files = []
    for kind, mount in _cpuset_mounts(tree):
        group = _group(tree, unified=kind == "cgroup2")
        names = {
            "cgroup2": ["cpuset.cpus.effective"],
            "cgroup": ["cpuset.effective_cpus", "cpuset.cpus"],
            "cpuset": ["cpus"],
        }[kind]
        while True:
            files += [f"{mount}/{group}/{name}".replace("//", "/") for name in names]
            if not group:
                break
            group = group.rpartition("/")[0]
    return files


def _cpuset_mounts(tree: Tree) -> list[tuple[str, str]]:
    """(file system type, mount point without its first slash) of each mount that controls CPUs."""
    found = []
    for line in (tree.text("proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        _, mount, kind, options = fields[:4]
        mount = mount.lstrip("/")
        controllers = (tree.text(f"{mount}/cgroup.controllers") or "").split() if kind == "cgroup2" else ()
        if kind == "cpuset" or "cpuset" in controllers:
            found.append((kind, mount))
        elif kind == "cgroup" and "cpuset" in options.split(","):
            found.append(("cpuset" if "noprefix" in options.split(",") else kind, mount))
    return found


def _group(tree: Tree, *, unified: bool) -> str:
    """The process's group, without its first slash."""
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (unified and number == "0") or (not unified and "cpuset" in controllers.split(",")):
            return path.strip("/")
    return (tree.text("proc/self/cpuset") or "").strip("/")
