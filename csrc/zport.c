/* zport.c - the platform differences behind zport.h.
 *
 * Invariant: nothing here allocates through malloc but zport_each_symbol and zport_pin, which
 * run when a library is loaded and never inside an allocator. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* dl_iterate_phdr, dladdr, MAP_NORESERVE */
#endif
#include "zport.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#include <psapi.h>
#else
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <link.h>
#include <sys/syscall.h>
#elif defined(__APPLE__)
#include <mach-o/dyld.h>
#include <mach/mach.h>
#include <sys/sysctl.h>
#elif defined(__FreeBSD__)
#include <sys/sysctl.h>
#include <sys/types.h>
#include <sys/user.h>
#endif

/* ---- pages ------------------------------------------------------------------------------- */

#if defined(_WIN32)

void *zport_map(size_t n)
{
    return VirtualAlloc(NULL, n, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void zport_unmap(void *p, size_t n)
{
    (void)n;
    VirtualFree(p, 0, MEM_RELEASE);
}

size_t zport_page_size(void)
{
    return 4096;
}

bool zport_discard(void *p, size_t n)
{
    (void)p, (void)n;
    return false;
}

#else

#if !defined(MAP_NORESERVE)
#define MAP_NORESERVE 0
#endif
#if !defined(MAP_ANONYMOUS)
#define MAP_ANONYMOUS MAP_ANON
#endif

void *zport_map(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void zport_unmap(void *p, size_t n)
{
    munmap(p, n);
}

size_t zport_page_size(void)
{
    const long size = sysconf(_SC_PAGESIZE);
    return size > 0 ? (size_t)size : 4096;
}

bool zport_discard(void *p, size_t n)
{
#if defined(__linux__) /* elsewhere the call need not zero what it takes */
    return madvise(p, n, MADV_DONTNEED) == 0;
#else
    (void)p, (void)n;
    return false;
#endif
}

#endif

/* ---- locks, fork ------------------------------------------------------------------------- */

#if defined(_WIN32)

void zport_lock(zport_mutex *m)
{
    AcquireSRWLockExclusive((SRWLOCK *)&m->srw);
}

void zport_unlock(zport_mutex *m)
{
    ReleaseSRWLockExclusive((SRWLOCK *)&m->srw);
}

bool zport_try_lock(zport_mutex *m)
{
    return TryAcquireSRWLockExclusive((SRWLOCK *)&m->srw);
}

void zport_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child; /* no fork on Windows */
}

#else

void zport_lock(zport_mutex *m)
{
    pthread_mutex_lock(m);
}

void zport_unlock(zport_mutex *m)
{
    pthread_mutex_unlock(m);
}

bool zport_try_lock(zport_mutex *m)
{
    return pthread_mutex_trylock(m) == 0;
}

void zport_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    pthread_atfork(prepare, parent, child);
}

#endif

bool zport_is_main_thread(void)
{
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid();
#elif defined(__APPLE__) || defined(__FreeBSD__)
    return pthread_main_np() != 0;
#else
    return true;
#endif
}

/* ---- small files, read without malloc or stdio --------------------------------------------- */

#if !defined(_WIN32)

/* The file's first size-1 bytes as a string; false if it cannot be read. */
static bool read_file(const char *path, char *buffer, size_t size)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t have = 0;
    while (have < size - 1) {
        const ssize_t n = read(fd, buffer + have, size - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    buffer[have] = '\0';
    return have > 0;
}

/* The digits at *text as a number that stops at SIZE_MAX; *text is moved past them. */
static size_t read_number(const char **text)
{
    size_t n = 0;
    while (**text >= '0' && **text <= '9') {
        const size_t digit = (size_t)(*(*text)++ - '0');
        n = n > (SIZE_MAX - digit) / 10 ? SIZE_MAX : n * 10 + digit;
    }
    return n;
}

#endif

/* ---- resident memory --------------------------------------------------------------------- */

#if defined(__linux__)

size_t zport_rss(void)
{
    char text[128]; /* "size resident shared ...", in pages */
    if (!read_file("/proc/self/statm", text, sizeof text))
        return 0;
    const char *s = text;
    read_number(&s);
    if (*s == ' ')
        s++;
    return read_number(&s) * (size_t)sysconf(_SC_PAGESIZE);
}

#elif defined(__APPLE__)

size_t zport_rss(void)
{
    struct mach_task_basic_info info;
    mach_msg_type_number_t count = MACH_TASK_BASIC_INFO_COUNT;
    if (task_info(mach_task_self(), MACH_TASK_BASIC_INFO, (task_info_t)&info, &count))
        return 0;
    return (size_t)info.resident_size;
}

#elif defined(__FreeBSD__)

size_t zport_rss(void)
{
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, getpid()};
    struct kinfo_proc info;
    size_t size = sizeof info;
    if (sysctl(name, 4, &info, &size, NULL, 0))
        return 0;
    return (size_t)info.ki_rssize * (size_t)getpagesize();
}

#elif defined(_WIN32)

size_t zport_rss(void)
{
    PROCESS_MEMORY_COUNTERS info;
    if (!GetProcessMemoryInfo(GetCurrentProcess(), &info, sizeof info))
        return 0;
    return info.WorkingSetSize;
}

#else

size_t zport_rss(void)
{
    return 0;
}

#endif

/* ---- how much memory there is to use ------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a == 0 ? b : b == 0 || a < b ? a : b;
}

#if defined(__linux__)

/* The smallest number in `file` of the group at `path` and of the groups above it; "max" and the
 * huge number that cgroup v1 writes for "no limit" are left for the caller's minimum. */
static size_t cgroup_limit(const char *mount, const char *path, const char *file)
{
    char name[PATH_MAX], text[64];
    size_t limit = 0, length = strlen(path);
    for (;;) {
        const int n = snprintf(name, sizeof name, "%s%.*s/%s", mount, (int)length, path, file);
        if (n > 0 && (size_t)n < sizeof name && read_file(name, text, sizeof text)) {
            const char *s = text;
            limit = smaller(limit, read_number(&s));
        }
        if (length == 0)
            return limit;
        while (length > 0 && path[--length] != '/')
            ;
    }
}

/* One line of /proc/self/cgroup, "number:controllers:path". */
static size_t cgroup_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return 0;
    *path++ = '\0';
    controllers++;
    char mount[PATH_MAX];
    const bool v2 = *controllers == '\0';
    if (!v2 && !strstr(controllers, "memory"))
        return 0;
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, v2 ? "" : "/memory");
    return cgroup_limit(mount, path, v2 ? "memory.max" : "memory.limit_in_bytes");
}

static size_t all_cgroups(const char *root)
{
    char name[PATH_MAX], text[8192];
    snprintf(name, sizeof name, "%s/proc/self/cgroup", root);
    if (!read_file(name, text, sizeof text))
        return 0;
    size_t limit = 0;
    for (char *line = text, *end; *line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        else
            end = line + strlen(line);
        limit = smaller(limit, cgroup_line(root, line));
    }
    return limit;
}

size_t zport_memory_size_at(const char *root)
{
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    const size_t machine = pages > 0 && page > 0 ? (size_t)pages * (size_t)page : 0;
    return smaller(machine, all_cgroups(root));
}

#elif defined(__APPLE__) || defined(__FreeBSD__)

size_t zport_memory_size_at(const char *root)
{
    (void)root;
#if defined(__APPLE__)
    int name[] = {CTL_HW, HW_MEMSIZE};
    uint64_t n = 0;
#else
    int name[] = {CTL_HW, HW_PHYSMEM};
    unsigned long n = 0;
#endif
    size_t size = sizeof n;
    return sysctl(name, 2, &n, &size, NULL, 0) ? 0 : (size_t)n;
}

#elif defined(_WIN32)

size_t zport_memory_size_at(const char *root)
{
    (void)root;
    MEMORYSTATUSEX status;
    status.dwLength = sizeof status;
    if (!GlobalMemoryStatusEx(&status))
        return 0;
    return status.ullTotalPhys > SIZE_MAX ? SIZE_MAX : (size_t)status.ullTotalPhys;
}

#else

size_t zport_memory_size_at(const char *root)
{
    (void)root, (void)smaller;
    return 0;
}

#endif

size_t zport_memory_size(void)
{
    return zport_memory_size_at("");
}

/* ---- smaps ------------------------------------------------------------------------------- */

#if defined(__linux__)

/* Adds up the lines of `path` that begin with `field`, "Field:   12 kB", read in pieces because
 * smaps has no upper size. False if the file cannot be read. */
static bool sum_smaps(const char *path, const char *field, size_t *sum)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char text[4096 + 1];
    const size_t length = strlen(field);
    size_t have = 0;
    *sum = 0;
    for (;;) {
        const ssize_t n = read(fd, text + have, sizeof text - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
        text[have] = '\0';
        char *line = text, *end;
        while ((end = strchr(line, '\n')) != NULL) {
            if (strncmp(line, field, length) == 0) {
                const char *s = line + length;
                while (*s == ' ')
                    s++;
                *sum += read_number(&s) * 1024;
            }
            line = end + 1;
        }
        have -= (size_t)(line - text);
        if (have == sizeof text - 1)
            have = 0; /* a line longer than the buffer: a path, never a field */
        memmove(text, line, have);
    }
    close(fd);
    return true;
}

size_t zport_smaps_field(const char *field, long pid)
{
    static const char *const files[] = {"smaps_rollup", "smaps"};
    for (size_t i = 0; i < 2; i++) {
        char path[64];
        size_t sum = 0;
        if (pid < 0)
            snprintf(path, sizeof path, "/proc/self/%s", files[i]);
        else
            snprintf(path, sizeof path, "/proc/%ld/%s", pid, files[i]);
        if (sum_smaps(path, field, &sum) && sum > 0)
            return sum;
    }
    return 0;
}

#else

size_t zport_smaps_field(const char *field, long pid)
{
    (void)field, (void)pid;
    return 0;
}

#endif

/* ---- loaded objects ---------------------------------------------------------------------- */

#if defined(__linux__) || defined(__FreeBSD__)

#include <link.h>

/* The names are collected first: dl_iterate_phdr holds the loader's lock during its callback, and
 * dlopen there could wait for a thread that waits for us. */
struct names {
    char **name;
    size_t count, room;
};

static int collect_name(struct dl_phdr_info *info, size_t size, void *ud)
{
    (void)size;
    struct names *all = ud;
    if (!info->dlpi_name || !*info->dlpi_name)
        return 0; /* the program itself, and the kernel's own page */
    if (all->count == all->room) {
        const size_t room = all->room ? 2 * all->room : 64;
        char **more = realloc(all->name, room * sizeof *more);
        if (!more)
            return 1;
        all->name = more;
        all->room = room;
    }
    char *copy = strdup(info->dlpi_name);
    if (!copy)
        return 1;
    all->name[all->count++] = copy;
    return 0;
}

static bool visit_symbol(const char *object, const char *name,
                         bool (*visit)(void *address, void *ud), void *ud)
{
    void *handle = dlopen(object, RTLD_LAZY | RTLD_NOLOAD);
    if (!handle)
        return false;
    void *address = dlsym(handle, name);
    const bool stop = address && visit(address, ud);
    dlclose(handle);
    return stop;
}

void zport_each_symbol(const char *name, bool (*visit)(void *address, void *ud), void *ud)
{
    struct names all = {NULL, 0, 0};
    dl_iterate_phdr(collect_name, &all);
    bool stop = visit_symbol(NULL, name, visit, ud);
    for (size_t i = 0; i < all.count; i++) {
        stop = stop || visit_symbol(all.name[i], name, visit, ud);
        free(all.name[i]);
    }
    free(all.name);
}

#elif defined(__APPLE__)

void zport_each_symbol(const char *name, bool (*visit)(void *address, void *ud), void *ud)
{
    const uint32_t count = _dyld_image_count();
    for (uint32_t i = 0; i < count; i++) {
        const char *image = _dyld_get_image_name(i);
        void *handle = image ? dlopen(image, RTLD_LAZY | RTLD_NOLOAD) : NULL;
        if (!handle)
            continue;
        void *address = dlsym(handle, name);
        const bool stop = address && visit(address, ud);
        dlclose(handle);
        if (stop)
            return;
    }
}

#else

void zport_each_symbol(const char *name, bool (*visit)(void *address, void *ud), void *ud)
{
    (void)name, (void)visit, (void)ud; /* each copy is on its own */
}

#endif

#if defined(_WIN32)

void zport_pin(const void *address)
{
    HMODULE module;
    GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                       (LPCSTR)address, &module);
}

const char *zport_object_name(const void *address)
{
    (void)address;
    return NULL;
}

#else

const char *zport_object_name(const void *address)
{
    Dl_info info;
    return dladdr(address, &info) && info.dli_fname && *info.dli_fname ? info.dli_fname : NULL;
}

void zport_pin(const void *address)
{
    const char *object = zport_object_name(address);
    if (object)
        (void)dlopen(object, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

#endif
