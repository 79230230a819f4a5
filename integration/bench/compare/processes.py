"""Child processes: started on a core, always stopped by their own pid, and what they cost: CPU of all their threads and resident memory."""
import os, signal, socket, subprocess, time

TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """Something did not work; the message says what and where to look."""


class Children:
    """Everything that was started and is to be gone at the end."""

    def __init__(self, log):
        self.log, self.running = log, []

    def start(self, cores, command, **options):
        # A session of its own: Ctrl-C reaches only the parent, which stops everything in order.
        process = subprocess.Popen(["taskset", "-c", cores, *command], stdout=options.pop("stdout", self.log),
                                   stderr=options.pop("stderr", self.log), start_new_session=True, **options)
        self.running.append(process)
        return process

    def stop(self, process, patience=0):
        """Ends a process and all that descend from it, after as many seconds in which it may end by itself."""
        if patience:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        # Parents first: a master that lives replaces a worker that dies. The group has those whom it was just making.
        for pid in family(process.pid):
            kill(os.kill, pid)
        kill(os.killpg, process.pid)
        process.wait()
        # Workers die on their own after their master; whoever measures next wants the core for himself.
        deadline = time.monotonic() + 2
        while is_there(process.pid) and time.monotonic() < deadline:
            time.sleep(0.005)
        if process in self.running:
            self.running.remove(process)

    def stop_all(self):
        for process in list(self.running):
            self.stop(process)


def kill(how, pid):
    try:
        how(pid, signal.SIGKILL)
    except OSError:
        pass


def is_there(group):
    """Whether anybody of a group is left."""
    try:
        os.killpg(group, 0)
        return True
    except OSError:
        return False


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process, what, log_path, patience=30):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Failure(f"{what} does not listen on {port}:\n{tail(log_path)}")


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError:
        return ""


def stat(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()


def family(pid):
    """The process and all that descend from it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(stat(entry)[1]), []).append(int(entry))
            except (OSError, IndexError):
                continue
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def families(pids):
    return [one for pid in pids for one in family(pid)]


class Cpu:
    """CPU time of processes, their threads and descendants so far. The scheduler's own account (nanoseconds, of living threads) gives the sum;
    clock ticks (10 ms) give the split into user and system, and the sum too when a thread has ended in between."""

    def __init__(self, pids):
        self.run, self.user, self.system, self.threads = 0, 0, 0, set()
        for one in families(pids):
            try:
                fields = stat(one)
                self.user += int(fields[11]) / TICKS
                self.system += int(fields[12]) / TICKS
                for thread in os.listdir(f"/proc/{one}/task"):
                    with open(f"/proc/{one}/task/{thread}/schedstat") as f:
                        self.run += int(f.read().split()[0]) / 1e9
                    self.threads.add(thread)
            except (OSError, IndexError):
                continue

    def until(self, later):
        """(user, system) seconds spent since."""
        user, system = later.user - self.user, later.system - self.system
        ticks = user + system
        exact = later.run - self.run
        total = exact if self.threads <= later.threads and exact > 0 else ticks
        share = user / ticks if ticks > 0 else 1
        return total * share, total * (1 - share)


def memory_kib(pids):
    """Resident memory: what is private to each process, and what they share counted once."""
    private, shared = 0, 0
    for one in families(pids):
        own = {}
        try:
            with open(f"/proc/{one}/smaps_rollup") as f:
                for line in f:
                    key, _, rest = line.partition(":")
                    if rest.endswith("kB\n"):
                        own[key] = int(rest.split()[0])
        except OSError:
            continue
        private += own.get("Private_Clean", 0) + own.get("Private_Dirty", 0)
        shared = max(shared, own.get("Shared_Clean", 0) + own.get("Shared_Dirty", 0))
    return private + shared
