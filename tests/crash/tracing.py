"""Runs a command under ptrace and kills it at one of its system calls, counted over all its threads."""
import ctypes
import os
import signal
import sys

SKIPPED = 77

# sys/ptrace.h, bits/waitflags.h
PTRACE_TRACEME, PTRACE_SYSCALL, PTRACE_SETOPTIONS = 0, 24, 0x4200
TRACESYSGOOD, TRACECLONE, EXITKILL = 1, 1 << 3, 1 << 20
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, data=0):
    if libc.ptrace(request, pid, None, data) < 0 and ctypes.get_errno() != 3:  # ESRCH: a thread that is ending
        raise OSError(ctypes.get_errno(), "ptrace")


def start_traced(command, quiet=True):
    pid = os.fork()
    if pid == 0:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2) if quiet else (0,):
            os.dup2(null, fd)
        try:
            ptrace(PTRACE_TRACEME, 0)
            os.execv(command[0], command)
        finally:
            os._exit(SKIPPED)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        print("tracing: this machine does not let processes be traced")
        sys.exit(SKIPPED)
    ptrace(PTRACE_SETOPTIONS, pid, TRACESYSGOOD | TRACECLONE | EXITKILL)
    return pid


def run_until(command, point, quiet=True):
    """Runs a command up to its system call number `point` and kills it there, or to its end. Returns how many it made, and its
    status where it came to an end."""
    leader = start_traced([str(word) for word in command], quiet)
    ptrace(PTRACE_SYSCALL, leader)
    count, inside = 0, set()
    while True:
        pid, status = os.waitpid(-1, WALL)
        if not os.WIFSTOPPED(status):
            if pid == leader:
                return count, os.waitstatus_to_exitcode(status)
            continue
        stopped = os.WSTOPSIG(status)
        if stopped == SYSCALL_STOP:
            if pid in inside:
                inside.discard(pid)
            else:
                inside.add(pid)
                count += 1
                if count == point:
                    os.kill(leader, signal.SIGKILL)
                    reap(leader)
                    return count, None
        # A new thread stops itself once, and so does the call that made it.
        deliver = 0 if stopped in (SYSCALL_STOP, signal.SIGTRAP, signal.SIGSTOP) else stopped
        ptrace(PTRACE_SYSCALL, pid, deliver)


def reap(leader):
    while True:
        pid, status = os.waitpid(-1, WALL)
        if pid == leader and not os.WIFSTOPPED(status):
            return
