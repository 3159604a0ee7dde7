"""A small client of CRI, the API by which a kubelet drives containerd: requests written and replies read by their public field numbers.

The numbers are those of runtime.v1 in kubernetes' cri-api."""
import os

import machine

NODE = 2  # NamespaceMode: the host's


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def message(fields):
    """Bytes of a message from its (number, value) pairs; a value is a number, text, bytes, or the pairs of a message in it."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
            continue
        data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else message(value)
        out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def fields(data):
    """A message's numbers and bytes by field number, as far as these replies have them; of a repeated field the last."""
    found, at = {}, 0
    while at < len(data):
        key, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        else:
            assert key & 7 == 0, f"wire type {key & 7}"
        found[key >> 3] = value
    return found


class Client:
    """Calls by the Go driver, which speaks gRPC; its files are in `work`."""

    def __init__(self, driver, socket, work):
        self.driver, self.socket, self.request, self.reply = driver, socket, work / "cri-request", work / "cri-reply"

    def call(self, method, *request):
        """A call such as RuntimeService/StartContainer; returns the reply's fields."""
        self.request.write_bytes(message(request))
        machine.run(self.driver, "-test.v", "-test.run", "^TestCriCall$", timeout=200, env={
            **os.environ, "IMGFS_CRI_SOCKET": str(self.socket), "IMGFS_CRI_METHOD": f"/runtime.v1.{method}",
            "IMGFS_CRI_REQUEST": str(self.request), "IMGFS_CRI_REPLY": str(self.reply)})
        return fields(self.reply.read_bytes())

    def pull(self, image):
        self.call("ImageService/PullImage", (1, [(1, image)]))

    def run_sandbox(self, config):
        """The pod's id."""
        return self.call("RuntimeService/RunPodSandbox", (1, config))[1].decode()

    def start_container(self, sandbox, config, sandbox_config):
        """The container's id."""
        made = self.call("RuntimeService/CreateContainer", (1, sandbox), (2, config), (3, sandbox_config))[1].decode()
        self.call("RuntimeService/StartContainer", (1, made))
        return made

    def execute(self, container, *command):
        """What a command in the container writes, which must end well."""
        done = self.call("RuntimeService/ExecSync", (1, container), *((2, word) for word in command), (3, 60))
        assert not done.get(3), f"exit {done[3]}: {done.get(2)}"
        return done.get(1, b"")

    def remove(self, container, sandbox):
        """Stops and removes both."""
        self.call("RuntimeService/StopContainer", (1, container), (2, 0))
        self.call("RuntimeService/RemoveContainer", (1, container))
        self.call("RuntimeService/StopPodSandbox", (1, sandbox))
        self.call("RuntimeService/RemovePodSandbox", (1, sandbox))


def labels(number, **more):
    """As a kubelet labels what it makes; `number` is the field's."""
    found = {"io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": "uid-1", **more}
    return [(number, [(1, name), (2, value)]) for name, value in found.items()]


def sandbox_config(logs):
    """A pod in the host's network, which needs no CNI plugin."""
    metadata = [(1, "pod"), (2, "uid-1"), (3, "default")]
    return [(1, metadata), (3, str(logs)), *labels(6), (8, [(2, [(1, [(1, NODE)])])])]


def container_config(image, *command, name="service"):
    named = labels(9, **{"io.kubernetes.container.name": name})
    return [(1, [(1, name)]), (2, [(1, image)]), *((3, word) for word in command), *named, (11, f"{name}.log")]
