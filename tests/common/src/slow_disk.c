/* Each wait for the disk takes NANOSECONDS longer. Built by `slow_disk.rs`, loaded before the C library. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static void wait_more(void) {
    struct timespec more = {0, NANOSECONDS};
    nanosleep(&more, 0);
}
int fdatasync(int file) {
    wait_more();
    return (int)syscall(SYS_fdatasync, file);
}
int fsync(int file) {
    wait_more();
    return (int)syscall(SYS_fsync, file);
}
