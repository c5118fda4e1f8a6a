# SPDX-License-Identifier: BSD-3-Clause
"""The CPUs that a process may use: its affinity on this machine, its cgroup's cpuset in a captured tree."""

from __future__ import annotations

import os

from eal.topology.tree import Tree


def allowed_cpus(tree: Tree) -> frozenset[int] | None:
    """Return the CPUs that the process may use, or None if nothing limits it.

    On this machine the affinity already is the cgroup's cpuset narrowed by taskset. A captured tree has no process to
    query, so the cgroup files of the captured process are read, as lstopo does with HWLOC_FSROOT.
    """
    if tree.live:
        return frozenset(os.sched_getaffinity(0))
    for name in _cpuset_files(tree):
        cpus = tree.numbers(name)
        if cpus:
            return cpus
    return None


def _cpuset_files(tree: Tree) -> list[str]:
    """Return the files that may list the CPUs: for each mount, those of the process's cgroup, then of its ancestors."""
    files = []
    for kind, mount in _cpuset_mounts(tree):
        group = _cgroup_path(tree, unified=kind == "cgroup2")
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
    """Return (file system type, mount point without the leading slash) of each mount with a cpuset controller."""
    mounts = []
    for line in (tree.text("proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        _, mount, kind, options = fields[:4]
        mount = mount.lstrip("/")
        controllers = (tree.text(f"{mount}/cgroup.controllers") or "").split() if kind == "cgroup2" else ()
        if kind == "cpuset" or "cpuset" in controllers:
            mounts.append((kind, mount))
        elif kind == "cgroup" and "cpuset" in options.split(","):
            mounts.append(("cpuset" if "noprefix" in options.split(",") else kind, mount))
    return mounts


def _cgroup_path(tree: Tree, *, unified: bool) -> str:
    """Return the process's cgroup without the leading slash; `unified`: in the hierarchy of cgroup v2."""
    for line in (tree.text("proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (unified and number == "0") or (not unified and "cpuset" in controllers.split(",")):
            return path.strip("/")
    return (tree.text("proc/self/cpuset") or "").strip("/")
