/* The disk, the clock and the bad luck of one simulated router, under the real agent and guardian.
 *
 * Preloaded into a process it
 *   - keeps a shadow of what would survive a power cut: a file's bytes from its last fsync, a
 *     directory's names from the directory's last fsync (the real fsync is left out: nobody cuts this
 *     machine's power, and the shadow is what counts);
 *   - counts file and serial operations below the router's directory, and lets those fail, strike
 *     the process dead or freeze the whole router that the rules in the control file name;
 *   - makes time run faster, the same for all processes of a router.
 * Where a cut falls and what it leaves is decided in Rust (campaign/cut.rs).
 *
 *   MU_SHIM_ROOT     the router's directory, without links
 *   MU_SHIM_LAB      a directory beside it: control, shadow/, pids
 *   MU_SHIM_SPEED    how often faster time runs, 1 without it
 *   MU_SHIM_DEAF     "names" or "bytes": fsync of directories or of files is not heard, as if the agent
 *                    had forgotten it; to see whether the campaign would notice
 *   MU_SHIM_NAME     what argv[0]'s last part begins with in processes that this is meant for
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, SYNC = 8, RENAME = 16, UNLINK = 32, MKDIR = 64, TRUNC = 128, IOCTL = 256 };
/* A rule's action is an errno, or one of these. */
enum { SHORT = 1000, KILL = 2000, FREEZE = 2001, DIE = 2002 };

#define RULES 8
#define KINDS 9
struct rule { uint64_t at, left, action, mask, struck; };
/* The layout is known to campaign/control.rs. */
struct control {
  uint64_t ops, frozen, dead, nrules;
  struct rule rules[RULES];
  /* How often each kind of operation was seen, on a file and on a port, and was made to fail. */
  struct { uint64_t seen, struck; } kinds[KINDS][2];
};

static struct control *control;
static char root[4096], shadow[4096];
static size_t root_length;
static uint64_t speed = 1;
static int active;
static char deaf;
static pthread_mutex_t shadow_lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ({ static __typeof__(&name) real_; if (!real_) real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real_; })

/* ---- which files are the router's ---- */

enum { UNKNOWN = 0, FOREIGN = 1, OURS = 2, TTY = 3 };
#define FDS 4096
static unsigned char kinds[FDS];

static int kind_of_path(const char *path) {
  if (!strncmp(path, "/dev/pts/", 9)) return TTY;
  if (strncmp(path, root, root_length)) return FOREIGN;
  const char *below = path + root_length;
  if (*below && *below != '/') return FOREIGN;
  /* What the stand-in tool notes for those who judge it. */
  if (!strncmp(below, "/tool", 5)) return FOREIGN;
  return !strncmp(below, "/dev/", 5) ? TTY : OURS;
}

static int kind_of(int fd) {
  if (!active || fd < 0 || fd >= FDS) return FOREIGN;
  if (kinds[fd] == UNKNOWN) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return FOREIGN;
    path[length] = 0;
    kinds[fd] = (unsigned char)kind_of_path(path);
  }
  return kinds[fd];
}

/* Where a path relative to an open directory is. */
static int kind_at(int dir, const char *path) {
  if (!active || !path) return FOREIGN;
  if (path[0] == '/') return kind_of_path(path);
  if (dir == AT_FDCWD) return FOREIGN;
  return kind_of(dir);
}

/* ---- the rules ---- */

static int applies(uint64_t action, int class, int kind) {
  switch (action) {
    case KILL: case FREEZE: case DIE: case EIO: return 1;
    case SHORT: return class == READ || class == WRITE;
    case ENOSPC: return kind == OURS && (class == OPEN || class == WRITE || class == SYNC || class == RENAME || class == MKDIR || class == TRUNC);
    case EROFS: return kind == OURS && (class == OPEN || class == WRITE || class == RENAME || class == UNLINK || class == MKDIR || class == TRUNC);
    case EMFILE: return class == OPEN;
    case EINTR: return class == READ || class == WRITE || class == SYNC || (class == OPEN && kind == TTY);
    case EAGAIN: return kind == TTY && (class == READ || class == WRITE || class == IOCTL);
    default: return 1;
  }
}

static void wait_while_frozen(void) {
  struct timespec nap = {0, 500000};
  while (__atomic_load_n(&control->frozen, __ATOMIC_SEQ_CST)) REAL(nanosleep)(&nap, NULL);
}

/* Counts an operation. 0: it may happen; SHORT: in part; else the errno it fails with. */
static int strike(int class, int kind) {
  if (!active || kind < OURS) return 0;
  wait_while_frozen();
  if (__atomic_load_n(&control->dead, __ATOMIC_SEQ_CST)) return EIO;
  uint64_t op = __atomic_add_fetch(&control->ops, 1, __ATOMIC_SEQ_CST);
  int place = __builtin_ctz((unsigned)class), port = kind == TTY;
  __atomic_add_fetch(&control->kinds[place][port].seen, 1, __ATOMIC_RELAXED);
  for (uint64_t i = 0; i < control->nrules && i < RULES; i++) {
    struct rule *rule = &control->rules[i];
    if (op < rule->at || !(rule->mask & (uint64_t)class) || !applies(rule->action, class, kind)) continue;
    uint64_t left = __atomic_load_n(&rule->left, __ATOMIC_SEQ_CST);
    do {
      if (!left) break;
    } while (!__atomic_compare_exchange_n(&rule->left, &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    if (!left) continue;
    __atomic_add_fetch(&rule->struck, 1, __ATOMIC_SEQ_CST);
    switch (rule->action) {
      case KILL: syscall(SYS_kill, getpid(), SIGKILL); break;
      case FREEZE: __atomic_store_n(&control->frozen, 1, __ATOMIC_SEQ_CST); wait_while_frozen(); break;
      case DIE: __atomic_store_n(&control->dead, 1, __ATOMIC_SEQ_CST); return EIO;
      default:
        __atomic_add_fetch(&control->kinds[place][port].struck, 1, __ATOMIC_RELAXED);
        return (int)rule->action;
    }
  }
  return 0;
}

/* Fails the operation, or lets it through, possibly in part. */
#define GUARD(class, kind) \
  do { int error_ = strike(class, kind); if (error_ && error_ != SHORT) { errno = error_; return -1; } } while (0)
#define GUARD_PART(class, kind, count) \
  do { int error_ = strike(class, kind); \
    if (error_ == SHORT) { if ((count) > 1) (count) = 1 + (count) / 3; } \
    else if (error_) { errno = error_; return -1; } } while (0)

/* ---- the shadow ---- */

/* Inode numbers are used again; with the time of birth they are not. */
static int key_at(int dir, const char *name, int flags, char *key, size_t size, mode_t *mode) {
  struct statx st;
  if (syscall(SYS_statx, dir, name, flags | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &st)) return -1;
  snprintf(key, size, "%llu-%lld-%u", (unsigned long long)st.stx_ino, (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
  if (mode) *mode = st.stx_mode;
  return 0;
}

/* The descriptor may be for writing only. */
static int copy_content(int fd, int to) {
  static char buffer[1 << 16];
  char path[64];
  long count;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int from = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (from < 0) return -1;
  while ((count = syscall(SYS_read, from, buffer, sizeof buffer)) > 0)
    if (syscall(SYS_write, to, buffer, count) != count) { count = -1; break; }
  syscall(SYS_close, from);
  return (int)count;
}

static int list_names(int fd, int to) {
  char path[64], key[80], line[512];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  DIR *dir = opendir(path);
  if (!dir) return -1;
  struct dirent *entry;
  while ((entry = readdir(dir))) {
    mode_t mode;
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    if (key_at(dirfd(dir), entry->d_name, 0, key, sizeof key, &mode)) continue;
    int length = snprintf(line, sizeof line, "%s %c %s\n", key, S_ISDIR(mode) ? 'd' : 'f', entry->d_name);
    if (syscall(SYS_write, to, line, length) != length) { closedir(dir); return -1; }
  }
  closedir(dir);
  return 0;
}

/* What fsync makes durable: exactly what is there now. A reader of the shadow sees the old or the new. */
static int persist(int fd) {
  static unsigned long number;
  char key[80], temporary[4200], final[4200], empty[1] = "";
  mode_t mode;
  if (key_at(fd, empty, AT_EMPTY_PATH, key, sizeof key, &mode)) return -1;
  if (!S_ISDIR(mode) && !S_ISREG(mode)) return 0;
  if (deaf == (S_ISDIR(mode) ? 'n' : 'b')) return 0;
  pthread_mutex_lock(&shadow_lock);
  snprintf(temporary, sizeof temporary, "%s/t-%d-%lu", shadow, getpid(), number++);
  snprintf(final, sizeof final, "%s/%c-%s", shadow, S_ISDIR(mode) ? 'd' : 'f', key);
  int to = (int)syscall(SYS_openat, AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int failed = to < 0 || (S_ISDIR(mode) ? list_names(fd, to) : copy_content(fd, to));
  if (to >= 0) syscall(SYS_close, to);
  if (!failed) failed = (int)syscall(SYS_renameat, AT_FDCWD, temporary, AT_FDCWD, final);
  pthread_mutex_unlock(&shadow_lock);
  return failed ? -1 : 0;
}

static int sync_fd(int fd) {
  GUARD(SYNC, kind_of(fd));
  if (persist(fd)) { errno = EIO; return -1; }
  return 0;
}

int fsync(int fd) { return kind_of(fd) == OURS ? sync_fd(fd) : REAL(fsync)(fd); }
int fdatasync(int fd) { return kind_of(fd) == OURS ? sync_fd(fd) : REAL(fdatasync)(fd); }

/* ---- files ---- */

static void opened(int fd, int kind) {
  if (active && fd >= 0 && fd < FDS) kinds[fd] = (unsigned char)kind;
}

#define MODE_ARGUMENT(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

static int open_at(int dir, const char *path, int flags, mode_t mode) {
  int kind = kind_at(dir, path);
  int error = strike(OPEN, kind);
  /* Only who writes can meet a full or read-only disk. */
  if ((error == ENOSPC || error == EROFS) && !(flags & (O_CREAT | O_WRONLY | O_RDWR))) error = 0;
  if (error && error != SHORT) { errno = error; return -1; }
  int fd = REAL(openat)(dir, path, flags, mode);
  opened(fd, kind == FOREIGN && path[0] != '/' ? UNKNOWN : kind);
  return fd;
}

int open(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_at(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return open_at(dir, path, flags | O_LARGEFILE, mode); }

int close(int fd) {
  if (fd >= 0 && fd < FDS) kinds[fd] = UNKNOWN;
  return REAL(close)(fd);
}

int dup2(int from, int to) {
  if (to >= 0 && to < FDS) kinds[to] = UNKNOWN;
  return REAL(dup2)(from, to);
}

ssize_t read(int fd, void *buffer, size_t count) { GUARD_PART(READ, kind_of(fd), count); return REAL(read)(fd, buffer, count); }
ssize_t pread64(int fd, void *buffer, size_t count, off64_t at) { GUARD_PART(READ, kind_of(fd), count); return REAL(pread64)(fd, buffer, count, at); }
ssize_t pread(int fd, void *buffer, size_t count, off_t at) { return pread64(fd, buffer, count, at); }
ssize_t write(int fd, const void *buffer, size_t count) { GUARD_PART(WRITE, kind_of(fd), count); return REAL(write)(fd, buffer, count); }
ssize_t pwrite64(int fd, const void *buffer, size_t count, off64_t at) { GUARD_PART(WRITE, kind_of(fd), count); return REAL(pwrite64)(fd, buffer, count, at); }
ssize_t pwrite(int fd, const void *buffer, size_t count, off_t at) { return pwrite64(fd, buffer, count, at); }
ssize_t readv(int fd, const struct iovec *parts, int count) { GUARD(READ, kind_of(fd)); return REAL(readv)(fd, parts, count); }
ssize_t writev(int fd, const struct iovec *parts, int count) { GUARD(WRITE, kind_of(fd)); return REAL(writev)(fd, parts, count); }

int ftruncate64(int fd, off64_t size) { GUARD(TRUNC, kind_of(fd)); return REAL(ftruncate64)(fd, size); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int renameat(int a, const char *from, int b, const char *to) { GUARD(RENAME, kind_at(b, to)); return REAL(renameat)(a, from, b, to); }
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
int unlinkat(int dir, const char *path, int flags) { GUARD(UNLINK, kind_at(dir, path)); return REAL(unlinkat)(dir, path, flags); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdirat(int dir, const char *path, mode_t mode) { GUARD(MKDIR, kind_at(dir, path)); return REAL(mkdirat)(dir, path, mode); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- ports ---- */

int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  int kind = kind_of(fd);
  if (kind == TTY) GUARD(IOCTL, kind);
  return REAL(ioctl)(fd, request, argument);
}

#define TTY_CALL(...) do { int kind_ = kind_of(fd); if (kind_ == TTY) GUARD(IOCTL, kind_); } while (0)
int tcgetattr(int fd, struct termios *settings) { TTY_CALL(); return REAL(tcgetattr)(fd, settings); }
int tcsetattr(int fd, int when, const struct termios *settings) { TTY_CALL(); return REAL(tcsetattr)(fd, when, settings); }
int tcflush(int fd, int what) { TTY_CALL(); return REAL(tcflush)(fd, what); }

/* ---- time ---- */

static int is_steady(clockid_t clock) {
  return clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME || clock == CLOCK_MONOTONIC_COARSE;
}

static int fast(void) { return active && speed > 1; }

static uint64_t nanos(const struct timespec *time) { return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec; }

static struct timespec spec(uint64_t nanos) {
  struct timespec time = {(time_t)(nanos / 1000000000u), (long)(nanos % 1000000000u)};
  return time;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = REAL(clock_gettime)(clock, time);
  if (!result && fast() && is_steady(clock)) *time = spec(nanos(time) * speed);
  return result;
}

int nanosleep(const struct timespec *wanted, struct timespec *left) {
  if (!fast()) return REAL(nanosleep)(wanted, left);
  struct timespec less = spec(nanos(wanted) / speed);
  int result = REAL(nanosleep)(&less, left);
  if (result && left) *left = spec(nanos(left) * speed);
  return result;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *wanted, struct timespec *left) {
  if (!fast() || !is_steady(clock)) return REAL(clock_nanosleep)(clock, flags, wanted, left);
  struct timespec less = spec(nanos(wanted) / speed);
  int result = REAL(clock_nanosleep)(clock, flags, &less, left);
  if (result && left && !(flags & TIMER_ABSTIME)) *left = spec(nanos(left) * speed);
  return result;
}

/* Rounded up: a wait for something soon must not become a busy loop. */
static int less_ms(int timeout) {
  if (!fast() || timeout <= 0) return timeout;
  return (int)(((uint64_t)timeout + speed - 1) / speed);
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout) { return REAL(epoll_wait)(fd, events, count, less_ms(timeout)); }
int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout, const sigset_t *mask) { return REAL(epoll_pwait)(fd, events, count, less_ms(timeout), mask); }
int poll(struct pollfd *fds, nfds_t count, int timeout) { return REAL(poll)(fds, count, less_ms(timeout)); }

/* ---- the start ---- */

__attribute__((constructor)) static void start(int argc, char **argv) {
  const char *where = getenv("MU_SHIM_ROOT"), *lab = getenv("MU_SHIM_LAB"), *name = getenv("MU_SHIM_NAME");
  char path[4200], line[64];
  if (argc < 1 || !where || !lab || !name || strlen(where) >= sizeof root || strlen(lab) >= 4000) return;
  const char *called = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
  if (strncmp(called, name, strlen(name))) return;
  strcpy(root, where);
  root_length = strlen(root);
  snprintf(shadow, sizeof shadow, "%s/shadow", lab);
  snprintf(path, sizeof path, "%s/control", lab);
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  syscall(SYS_close, fd);
  if (mapped == MAP_FAILED) return;
  control = mapped;
  if (getenv("MU_SHIM_SPEED")) speed = strtoull(getenv("MU_SHIM_SPEED"), NULL, 10);
  if (!speed) speed = 1;
  if (getenv("MU_SHIM_DEAF")) deaf = getenv("MU_SHIM_DEAF")[0];
  snprintf(path, sizeof path, "%s/pids", lab);
  fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  int length = snprintf(line, sizeof line, "%d %s\n", getpid(), argc > 1 ? argv[1] : "");
  if (fd >= 0) { (void)!syscall(SYS_write, fd, line, length); syscall(SYS_close, fd); }
  active = 1;
}
