"""Small images made byte by byte, in the forms that sources come in."""
import gzip
import hashlib
import io
import json
import subprocess
import tarfile

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
REF_NAME = "org.opencontainers.image.ref.name"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tar_of(*members, **options):
    """A tar of (name, content) pairs, and of TarInfo objects as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **{"format": tarfile.PAX_FORMAT, **options}) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size, info.mode = len(member[1]), 0o644
            tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def pack(data, form):
    """The data as it is ("tar"), or compressed ("gzip", "zstd")."""
    if form == "gzip":
        return gzip.compress(data, mtime=0)
    if form == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, check=True, capture_output=True).stdout
    return data


class Image:
    """Layers, lowest first, and the config that names them."""

    def __init__(self, *layers, architecture="amd64", **config):
        self.layers = layers
        self.diff_ids = [f"sha256:{sha256(layer)}" for layer in layers]
        self.config = json.dumps({
            "architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "x-unknown": [1, {"kept": None}], **config,
        }).encode()

    @property
    def id(self):
        return f"sha256:{sha256(self.config)}"


def _add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _link(tar, name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)


def docker_archive(images, layout="old", form="tar"):
    """What `docker save` writes of (Image, tags) pairs: "old" (up to 24), "new" (from 25), "podman"."""
    out, manifest, have = io.BytesIO(), [], {}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image, tags in images:
            names = []
            for number, layer in enumerate(image.layers):
                packed = pack(layer, form)
                digest = sha256(packed)
                if layout == "new":
                    name = f"blobs/sha256/{digest}"
                elif layout == "podman":
                    name = f"{digest}.tar"
                else:
                    name = f"{sha256(image.config)[:32]}{number:032d}/layer.tar"
                if layout == "old" and digest in have:
                    _link(tar, name, f"../{have[digest]}")
                elif digest not in have:
                    _add(tar, name, packed)
                have.setdefault(digest, name)
                names.append(name)
            config = f"blobs/sha256/{sha256(image.config)}" if layout == "new" else f"{sha256(image.config)}.json"
            _add(tar, config, image.config)
            manifest.append({"Config": config, "RepoTags": list(tags), "Layers": names})
        if layout == "new":
            _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
            _add(tar, "index.json", b'{"schemaVersion":2,"manifests":[]}')
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


class Layout:
    """An OCI image layout below a directory."""

    def __init__(self, path):
        self.path = path
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.manifests = []
        self.write_index()

    def blob(self, data, media_type, **fields):
        """Puts a blob; returns its descriptor."""
        digest = sha256(data)
        (self.path / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **fields}

    def manifest(self, image, form="gzip", docker=False, layer_fields=(), **fields):
        """Puts an image; returns the descriptor of its manifest. `fields` are more of the manifest's."""
        suffix = {"tar": "", "gzip": "+gzip", "zstd": "+zstd"}[form]
        media_type = DOCKER_LAYER if docker else OCI_LAYER + suffix
        layers = [self.blob(pack(layer, form), media_type) for layer in image.layers]
        for layer, more in zip(layers, layer_fields):
            layer.update(more)
        config = self.blob(image.config, DOCKER_CONFIG if docker else OCI_CONFIG)
        kind = DOCKER_MANIFEST if docker else OCI_MANIFEST
        document = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers, **fields}
        return self.blob(json.dumps(document).encode(), kind)

    def index(self, *descriptors):
        """Puts an index of manifests; returns its descriptor."""
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}).encode(), OCI_INDEX)

    def add(self, descriptor, name=None):
        if name:
            descriptor = {**descriptor, "annotations": {REF_NAME: name}}
        self.manifests.append(descriptor)
        self.write_index()

    def write_index(self):
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))

    def archive(self):
        """The same as one tar, its index at the end."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path in sorted(self.path.rglob("*"), key=lambda path: (path.name == "index.json", path)):
                tar.add(path, path.relative_to(self.path), recursive=False)
        return out.getvalue()
