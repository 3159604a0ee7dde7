"""Seeded random trees in layers, as image builders write them, and images made of many such trees.

A tree is a directory of its own in each layer of the image. What a layer does to the layers below: files, directories, symbolic links,
devices and FIFOs added or replaced, also by another type; whiteouts; opaque directories; hard links; metadata changed.
"""
import hashlib
import io
import json
import random
import tarfile

LAYERS_MAX = 6
ALPHABETS = ["abcxyz", "AB .-_", "äß€日", "\n\t\\'\"", "\udc80\udcfe\udcff", "0123456789"]
NAMES = ["...", "-", "--help", "w h", ".whx", ".w", "lost+found", "a" * 255, "\u00e9" * 127, "*", "#"]
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class Node:
    """What a name stands for: the fields of a tar header, and the content."""

    def __init__(self, kind, rng, **fields):
        self.kind = kind
        self.mode = rng.choice([0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o000, 0o777, rng.randrange(0o10000)])
        self.uid, self.gid = rng.choice([(0, 0), (1000, 1000), (65534, 65534), (rng.randrange(2**31), rng.randrange(2**31))])
        self.seconds = rng.randrange(2**31)
        self.nanoseconds = rng.choice([0, rng.randrange(10**9)])
        self.xattrs = {}
        if kind in (tarfile.REGTYPE, tarfile.DIRTYPE) and rng.random() < 0.2:
            # None that is empty: Go's tar reader, and so docker and umoci, loses those.
            self.xattrs = {f"user.{rng.choice('abc')}": rng.choice(["0", "1", "long" * 50]) for _ in range(rng.randrange(1, 3))}
        self.content, self.target, self.device = fields.get("content", b""), fields.get("target", ""), fields.get("device", (0, 0))

    def info(self, path):
        info = tarfile.TarInfo(path)
        info.type, info.mode, info.uid, info.gid = self.kind, self.mode, self.uid, self.gid
        info.mtime, info.size, info.linkname = self.seconds, len(self.content), self.target
        info.devmajor, info.devminor = self.device
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in self.xattrs.items()}
        if self.nanoseconds:
            info.pax_headers["mtime"] = f"{self.seconds}.{self.nanoseconds:09d}"
        return info


def is_below(path, top):
    return path == top or path.startswith(f"{top}/")


class Layer:
    """Entries of one layer of one tree, in order."""

    def __init__(self, root):
        self.root = root
        self.entries = []  # (path, TarInfo, content)
        self.touched = set()
        self.links = []  # those come last, after their targets

    def add(self, path, info, content=b""):
        self.entries.append((path, info, content))

    def touches(self, top):
        return any(is_below(path, top) for path in self.touched)


class Tree:
    """One tree: generates its layers with layer(). A rare one also does what docker's overlay2 cannot unpack, but the format allows."""

    def __init__(self, root, seed, rare=False):
        self.root, self.rng, self.rare = root, random.Random(seed), rare
        self.nodes = {root: Node(tarfile.DIRTYPE, self.rng)}
        self.nodes[root].mode = 0o755

    def directories(self):
        return [path for path, node in self.nodes.items() if node.kind == tarfile.DIRTYPE]

    def name(self):
        rng = self.rng
        if rng.random() < 0.15:
            return rng.choice(NAMES)
        while True:
            alphabet = rng.choice(ALPHABETS[:1] * 6 + ALPHABETS)
            name = "".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 4)))
            if name not in (".", ".."):
                return name

    def content(self):
        rng = self.rng
        size = rng.choice([0, 1, 100, 4095, 4096, 5000, 40000])
        return rng.randbytes(min(size, 64)) * (size // 64 + 1) if rng.random() < 0.7 else rng.randbytes(size)

    def node(self, kind=None):
        rng = self.rng
        kind = kind or rng.choice(
            [tarfile.REGTYPE] * 5 + [tarfile.DIRTYPE] * 4 + [tarfile.SYMTYPE] * 2
            + [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
        )
        if kind == tarfile.REGTYPE:
            return Node(kind, rng, content=self.content())
        if kind == tarfile.SYMTYPE:
            return Node(kind, rng, target=rng.choice(["a", "../x", "/etc/passwd", ".", "b" * 300, "ä/\n"]))
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            return Node(kind, rng, device=(rng.randrange(1, 256), rng.randrange(256)))
        return Node(kind, rng)

    def parents(self, layer, path):
        """Directories on the way, each with an entry of its own in the layer, as builders write them."""
        missing = []
        if self.rare and self.rng.random() < 0.3:
            return
        while path != self.root:
            path = path.rpartition("/")[0]
            if path in layer.touched:
                break
            missing.append(path)
        for directory in reversed(missing):
            layer.touched.add(directory)
            layer.add(directory, self.nodes[directory].info(directory))

    def emit(self, layer, path, node):
        self.parents(layer, path)
        layer.touched.add(path)
        layer.add(path, node.info(path), node.content)
        if node.kind != tarfile.DIRTYPE:
            self.remove(path)
        self.nodes[path] = node

    def remove(self, top):
        for path in [path for path in self.nodes if is_below(path, top)]:
            del self.nodes[path]

    # What can happen in a layer. Each may find nothing to do.

    def do_add(self, layer, _lower):
        path = f"{self.rng.choice(self.directories())}/{self.name()}"
        old, new = self.nodes.get(path), self.node()
        if path in layer.touched or (old and old.kind != new.kind and layer.touches(path)):
            return
        self.emit(layer, path, new)

    def do_whiteout(self, layer, lower):
        candidates = [path for path in self.nodes if path in lower and path != self.root and not layer.touches(path)]
        if not candidates:
            return
        path = self.rng.choice(sorted(candidates))
        directory, _, name = path.rpartition("/")
        if len(name.encode(errors="surrogateescape")) > 251:
            return
        self.parents(layer, path)
        layer.touched.add(path)
        info = tarfile.TarInfo(f"{directory}/.wh.{name}")
        layer.add(info.name, info)
        self.remove(path)

    def do_opaque(self, layer, lower):
        candidates = [path for path in self.directories() if path in lower and path != self.root and not layer.touches(path)]
        if not candidates:
            return
        path = self.rng.choice(sorted(candidates))
        node = self.node(tarfile.DIRTYPE)
        self.parents(layer, path)
        layer.touched.add(path)
        layer.add(path, node.info(path))
        info = tarfile.TarInfo(f"{path}/.wh..wh..opq")
        layer.add(info.name, info)
        self.remove(path)
        self.nodes[path] = node

    def do_link(self, layer, _lower):
        """A second name in this layer for what has an entry in it."""
        sources = [path for path, info, _ in layer.entries
                   if info.type in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE) and path in self.nodes
                   and not path.rpartition("/")[2].startswith(".wh.") and self.nodes[path].kind == info.type]
        if not sources:
            return
        source = self.rng.choice(sources)
        path = f"{self.rng.choice(self.directories())}/{self.name()}"
        if path in layer.touched or layer.touches(path) or is_below(path, source):
            return
        node = self.nodes[source]
        self.parents(layer, path)
        layer.touched.add(path)
        info = node.info(path)
        info.type, info.linkname, info.size = tarfile.LNKTYPE, source, 0
        layer.links.append((path, info, b""))
        self.remove(path)
        self.nodes[path] = node

    def do_change(self, layer, lower):
        """Other metadata for what is there: the entry comes again, with its content."""
        candidates = [path for path in self.nodes if path in lower and path not in layer.touched]
        if not candidates:
            return
        path = self.rng.choice(sorted(candidates))
        old = self.nodes[path]
        new = Node(old.kind, self.rng, content=old.content, target=old.target, device=old.device)
        if path == self.root:
            new.mode |= 0o700
        self.emit(layer, path, new)

    def do_link_lower(self, layer, lower):
        """A second name for a file of a layer below."""
        sources = [path for path, node in self.nodes.items() if path in lower and path not in layer.touched
                   and node.kind == tarfile.REGTYPE]
        path = f"{self.rng.choice(self.directories())}/{self.name()}"
        if not sources or layer.touches(path):
            return
        source = self.rng.choice(sorted(sources))
        if is_below(source, path):
            return
        node = self.nodes[source]
        self.parents(layer, path)
        layer.touched |= {path, source}
        info = node.info(path)
        info.type, info.linkname, info.size = tarfile.LNKTYPE, source, 0
        layer.links.append((path, info, b""))
        self.remove(path)
        self.nodes[path] = node

    def do_stray_whiteout(self, layer, _lower):
        path = f"{self.rng.choice(self.directories())}/{self.name()}"
        directory, _, name = path.rpartition("/")
        if path in self.nodes or path in layer.touched or len(name.encode(errors="surrogateescape")) > 251:
            return
        self.parents(layer, path)
        layer.touched.add(path)
        info = tarfile.TarInfo(f"{directory}/.wh.{name}")
        layer.add(info.name, info)

    def do_twice(self, layer, _lower):
        """A file that the layer has already comes again."""
        linked = {info.linkname for _, info, _ in layer.links}
        paths = [path for path, info, _ in layer.entries if info.type == tarfile.REGTYPE and path in self.nodes
                 and self.nodes[path].kind == tarfile.REGTYPE and path not in linked]
        if not paths:
            return
        path, node = self.rng.choice(paths), self.node(tarfile.REGTYPE)
        layer.add(path, node.info(path), node.content)
        self.nodes[path] = node

    def layer(self):
        """The entries of the next layer: (TarInfo, content)."""
        layer, lower = Layer(self.root), set(self.nodes)
        actions = [self.do_add] * 8 + [self.do_whiteout] * 2 + [self.do_opaque, self.do_link, self.do_link, self.do_change]
        if self.rare:
            actions += [self.do_link_lower] * 2 + [self.do_stray_whiteout, self.do_twice]
        for _ in range(self.rng.randrange(2, 14)):
            self.rng.choice(actions)(layer, lower)
        if self.root not in layer.touched:
            layer.entries.insert(0, (self.root, self.nodes[self.root].info(self.root), b""))
        return [(info, content) for _, info, content in layer.entries + layer.links]


def make_layers(roots_and_seeds, count, rare=False):
    """`count` tars, lowest first, in which each root has its tree."""
    trees = [Tree(root, seed, rare) for root, seed in roots_and_seeds]
    tars = []
    for number in range(count):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for tree in trees:
                # Not every tree changes in every layer.
                if number > 0 and tree.rng.random() < 0.2:
                    continue
                for info, content in tree.layer():
                    tar.addfile(info, io.BytesIO(content))
        tars.append(file.getvalue())
    return tars


def digest(data):
    return hashlib.sha256(data).hexdigest()


class Image:
    """An image of some layers, for OCI layouts and docker archives."""

    def __init__(self, name, tars):
        self.name, self.tars = name, tars
        self.config = json.dumps({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(tar)}" for tar in tars]},
        }).encode()

    def descriptor(self, data, media_type):
        return {"mediaType": media_type, "digest": f"sha256:{digest(data)}", "size": len(data)}

    def manifest(self):
        return json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.descriptor(tar, LAYER_TYPE) for tar in self.tars],
        }).encode()


def write_layout(path, images):
    """An OCI layout with each image under its name."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = {"schemaVersion": 2, "manifests": []}
    for image in images:
        manifest = image.manifest()
        for data in (*image.tars, image.config, manifest):
            (blobs / digest(data)).write_bytes(data)
        index["manifests"].append({
            **image.descriptor(manifest, "application/vnd.oci.image.manifest.v1+json"),
            "annotations": {"org.opencontainers.image.ref.name": image.name},
        })
    (path / "index.json").write_text(json.dumps(index))


def write_archive(path, images):
    """What docker load takes."""
    files, manifest = {}, []
    for image in images:
        names = [f"{digest(tar)}.tar" for tar in image.tars]
        files.update(zip(names, image.tars))
        files[f"{digest(image.config)}.json"] = image.config
        manifest.append({"Config": f"{digest(image.config)}.json", "RepoTags": [f"random:{image.name}"], "Layers": names})
    files["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
