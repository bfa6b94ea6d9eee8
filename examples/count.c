/* count.c - the counted allocator in a C program.
 *
 *     cc count.c $(pkg-config --cflags --libs zmalloc) -o count && ./count */
#include <stdio.h>
#include <zmalloc.h>

int main(void)
{
    char *name = zstrdup("every byte counts");
    int *numbers = zcalloc_num(1000, sizeof *numbers);
    printf("%zu bytes in use\n", zmalloc_used_memory());
    zfree(numbers);
    zfree(name);
    printf("%zu now, %zu at most\n", zmalloc_used_memory(), zmalloc_peak_memory());

    zaccount *plugin = zaccount_new("plugin", NULL);
    zaccount_set_limit(plugin, 4096, 0);
    void *block = zaccount_alloc(plugin, NULL, 0, 4000);
    void *refused = zaccount_alloc(plugin, NULL, 0, 97);
    printf("plugin: %zu of 4096 bytes, 97 more: %s\n", zaccount_used(plugin),
           refused ? "granted" : "refused");
    zaccount_alloc(plugin, block, 4000, 0);
    return zaccount_free(plugin);
}
