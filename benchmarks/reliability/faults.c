/* Makes the n-th write, read, fsync, rename, ... on files below one folder fail, or kills the process there.
 *
 * Loaded with LD_PRELOAD, so that it also reaches what native code writes (safetensors). Disarmed until `faults_arm` is called.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OP_WRITE, OP_READ, OP_FSYNC, OP_RENAME, OP_CREATE, OP_UNLINK, OP_MKDIR, N_OPS };
enum { ACT_COUNT = 0, ACT_KILL_BEFORE = -1, ACT_KILL_AFTER = -2 }; /* otherwise an errno */

static char folder[PATH_MAX];
static size_t folder_length;
static int armed, failing_op, action;
static long failing_from;        /* the first call that fails, counted from 1 */
static int failing_for_good;     /* every later one fails as well: a disk that is full stays full */
static long long bytes_left = -1; /* of what may be written; -1: any number */
static atomic_long counts[N_OPS];

void faults_arm(const char *below, int op, long from, int for_good, int what, long long bytes) {
  snprintf(folder, sizeof folder, "%s", below);
  folder_length = strlen(folder);
  for (int i = 0; i < N_OPS; i++) atomic_store(&counts[i], 0);
  failing_op = op, failing_from = from, failing_for_good = for_good, action = what, bytes_left = bytes;
  armed = 1;
}

void faults_disarm(void) { armed = 0; }
long faults_count(int op) { return atomic_load(&counts[op]); }

static int below(const char *path) {
  char full[PATH_MAX];
  if (!path) return 0;
  if (path[0] != '/') {
    if (!getcwd(full, sizeof full)) return 0;
    size_t n = strlen(full);
    snprintf(full + n, sizeof full - n, "/%s", path);
    path = full;
  }
  return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

static int fd_below(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return path[0] == '/' && below(path);
}

/* 0: go on. An errno: fail with it. Kills the process where that is asked for. */
static int verdict(int op) {
  long n = atomic_fetch_add(&counts[op], 1) + 1;
  if (op != failing_op || action == ACT_COUNT) return 0;
  if (n != failing_from && !(failing_for_good && n > failing_from)) return 0;
  if (action == ACT_KILL_BEFORE) kill(getpid(), SIGKILL);
  return action > 0 ? action : 0;
}

static void after(int op) {
  if (op == failing_op && action == ACT_KILL_AFTER && atomic_load(&counts[op]) >= failing_from) kill(getpid(), SIGKILL);
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define GUARD(op, condition, call) \
  if (!armed || !(condition)) return call; \
  int refused = verdict(op); \
  if (refused) { errno = refused; return -1; } \
  __auto_type result = call; \
  after(op); \
  return result

static int full(size_t n) {
  if (bytes_left < 0) return 0;
  bytes_left -= (long long)n;
  return bytes_left < 0;
}

ssize_t write(int fd, const void *data, size_t n) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (armed && bytes_left >= 0 && fd_below(fd) && full(n)) { bytes_left = 0; errno = ENOSPC; return -1; }
  GUARD(OP_WRITE, fd_below(fd), real(fd, data, n));
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
  GUARD(OP_WRITE, fd_below(fd), real(fd, data, n, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  GUARD(OP_WRITE, fd_below(fd), real(fd, parts, n));
}
ssize_t read(int fd, void *data, size_t n) {
  REAL(ssize_t, read, int, void *, size_t);
  GUARD(OP_READ, fd_below(fd), real(fd, data, n));
}
int fsync(int fd) {
  REAL(int, fsync, int);
  GUARD(OP_FSYNC, fd_below(fd), real(fd));
}
int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  GUARD(OP_FSYNC, fd_below(fd), real(fd));
}
int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  GUARD(OP_RENAME, below(from) || below(to), real(from, to));
}
int renameat(int a, const char *from, int b, const char *to) {
  REAL(int, renameat, int, const char *, int, const char *);
  GUARD(OP_RENAME, below(from) || below(to), real(a, from, b, to));
}
int unlink(const char *path) {
  REAL(int, unlink, const char *);
  GUARD(OP_UNLINK, below(path), real(path));
}
int mkdir(const char *path, mode_t mode) {
  REAL(int, mkdir, const char *, mode_t);
  GUARD(OP_MKDIR, below(path), real(path, mode));
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    mode_t mode = 0; \
    if (flags & O_CREAT) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    REAL(int, name, const char *, int, ...); \
    GUARD(OP_CREATE, (flags & O_CREAT) && below(path), real(path, flags, mode)); \
  }
OPEN(open)
OPEN(open64)
