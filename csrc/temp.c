/* Files that are written before they take their place: without a name where the system has that, else with a temporary
 * one. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- temporary names ---- */

void e2b_temp_name(char *to)
{
    uint64_t value = 0;
    int fd = e2b_openat(AT_FDCWD, "/dev/urandom", O_RDONLY, 0);
    if (fd >= 0) {
        if (read(fd, &value, sizeof value) != (ssize_t)sizeof value)
            value = 0;
        close(fd);
    }
    if (value == 0) { /* the name has to be new, not secret: it is opened with O_EXCL */
        struct timespec now = { 0, 0 };
        clock_gettime(CLOCK_MONOTONIC, &now);
        value = ((uint64_t)getpid() << 40) ^ ((uint64_t)now.tv_sec << 30) ^ (uint64_t)now.tv_nsec;
    }
    snprintf(to, E2B_TEMP_SIZE, ".e2b-%08lx%08lx.part", (unsigned long)(value >> 32),
             (unsigned long)(value & 0xffffffffu));
}

/* A new file in that directory; -1 with errno. */
static int new_file(int dir, char *name, mode_t mode)
{
    int tries, fd = -1;
    for (tries = 0; tries < 100; tries++) {
        e2b_temp_name(name);
        fd = e2b_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
        if (fd >= 0 || errno != EEXIST)
            break;
    }
    return fd;
}

/* What the umask and the directory make of a new file: an empty one is asked, as reading the umask means setting it for
 * every thread of the process. */
static mode_t usual_mode(int dir)
{
    char name[E2B_TEMP_SIZE];
    struct stat st;
    mode_t mode = 0600;
    int fd = new_file(dir, name, 0666);
    if (fd < 0)
        return mode;
    if (fstat(fd, &st) == 0)
        mode = st.st_mode & 0777;
    close(fd);
    unlinkat(dir, name, 0);
    return mode;
}

static int begin_named(e2b_file *f)
{
    char temp[E2B_TEMP_SIZE];
    int fd = new_file(f->dir, temp, 0600);
    if (fd < 0)
        return errno;
    f->fd = fd;
    memcpy(f->temp, temp, sizeof temp);
    return 0;
}

/* ---- files without a name, which are gone with the process whatever ends it ---- */

#if defined(O_TMPFILE)
static void name_in_proc(char *to, size_t size, int fd)
{
    snprintf(to, size, "/proc/self/fd/%d", fd);
}

/* -1 when there can be none, or when it could not be given a name later. */
static int new_unnamed(int dir)
{
    char name[32];
    struct stat st, seen;
    int fd = e2b_openat(dir, ".", O_RDWR | O_TMPFILE, 0600);
    if (fd < 0)
        return -1;
    name_in_proc(name, sizeof name, fd);
    if (fstat(fd, &st) == 0 && stat(name, &seen) == 0 && st.st_dev == seen.st_dev && st.st_ino == seen.st_ino)
        return fd;
    close(fd);
    return -1;
}

/* For places without hard links: what was written goes into a file with a name. 0 or an errno. */
static int copy_to_named(e2b_file *f)
{
    char bytes[8192];
    int from = f->fd, error = begin_named(f);
    if (error != 0)
        return error;
    if (lseek(from, 0, SEEK_SET) < 0)
        error = errno;
    while (error == 0) {
        ssize_t done, at = 0, got = read(from, bytes, sizeof bytes);
        if (got == 0)
            break;
        if (got < 0 && errno != EINTR)
            error = errno;
        while (error == 0 && at < got) {
            done = write(f->fd, bytes + at, (size_t)(got - at));
            if (done >= 0)
                at += done;
            else if (errno != EINTR)
                error = errno;
        }
    }
    close(from);
    return error;
}

/* 0 or an errno. */
static int give_name(e2b_file *f)
{
    char name[32], temp[E2B_TEMP_SIZE];
    int tries;
    name_in_proc(name, sizeof name, f->fd);
    for (tries = 0; tries < 100; tries++) {
        e2b_temp_name(temp);
        if (linkat(AT_FDCWD, name, f->dir, temp, AT_SYMLINK_FOLLOW) == 0) {
            memcpy(f->temp, temp, sizeof temp);
            return 0;
        }
        if (errno != EEXIST)
            break;
    }
    return copy_to_named(f);
}
#else
static int new_unnamed(int dir)
{
    (void)dir;
    return -1;
}

static int give_name(e2b_file *f)
{
    (void)f;
    return 0;
}
#endif

/* ---- both ---- */

int e2b_file_begin(e2b_file *f)
{
    f->fd = new_unnamed(f->dir);
    return f->fd >= 0 ? 0 : begin_named(f);
}

/* Gives the temporary file the mode (and owner) it will have; 0 or an errno. */
static int dress(const e2b_file *f, const mode_t *wanted)
{
    struct stat st;
    mode_t mode;
    int there = fstatat(f->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
    if (wanted != NULL)
        mode = *wanted;
    else if (there)
        mode = st.st_mode & 0777;
    else
        mode = usual_mode(f->dir);
    if (there && st.st_uid != geteuid() && fchown(f->fd, st.st_uid, st.st_gid) != 0 && errno != EPERM)
        return errno;
    if (fchmod(f->fd, mode) != 0 && errno != EPERM && errno != ENOTSUP && errno != ENOSYS)
        return errno; /* those three: a file system without modes */
    return 0;
}

int e2b_file_finish(e2b_file *f, const mode_t *mode)
{
    int error = f->temp[0] != '\0' ? 0 : give_name(f);
    return error != 0 ? error : dress(f, mode);
}
