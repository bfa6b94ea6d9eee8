/* driver.c - runs a fuzz target without libFuzzer: the lines of its corpus as they are, then streams made of
 * them and of noise. The same ones for the same seed.
 *
 *     target STREAMS SEED CORPUS */
#include "stream.h"

enum { LINES = 512, LONGEST = 1024 };

static struct {
    uint8_t byte[LONGEST];
    size_t length;
} line[LINES];
static size_t lines;

static size_t below(uint64_t *seed, size_t n)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return (size_t)(*seed >> 11) % n;
}

static void read_corpus(const char *path)
{
    FILE *file = fopen(path, "r");
    MUST(file);
    while (lines < LINES && fgets((char *)line[lines].byte, LONGEST, file)) {
        line[lines].length = strcspn((const char *)line[lines].byte, "\n");
        lines++;
    }
    fclose(file);
    MUST(lines > 0);
}

/* Noise, or a line some of whose bytes are changed, or the halves of two lines. */
static size_t make(uint8_t *to, uint64_t *seed)
{
    if (below(seed, 3) == 0) {
        const size_t length = below(seed, LONGEST);
        for (size_t i = 0; i < length; i++)
            to[i] = (uint8_t)below(seed, 256);
        return length;
    }
    const size_t a = below(seed, lines), b = below(seed, lines);
    const size_t keep = below(seed, line[a].length + 1), from = below(seed, line[b].length + 1);
    size_t length = keep;
    memcpy(to, line[a].byte, keep);
    for (size_t i = from; i < line[b].length && length < LONGEST; i++)
        to[length++] = line[b].byte[i];
    for (size_t changes = below(seed, 4); changes && length; changes--)
        to[below(seed, length)] = (uint8_t)below(seed, 256);
    return length;
}

int main(int argc, char **argv)
{
    MUST(argc == 4);
    const long streams = atol(argv[1]);
    uint64_t seed = strtoull(argv[2], NULL, 0) * 2 + 1;
    static uint8_t bytes[LONGEST];
    read_corpus(argv[3]);
    for (size_t i = 0; i < lines; i++)
        LLVMFuzzerTestOneInput(line[i].byte, line[i].length);
    for (long i = 0; i < streams; i++)
        LLVMFuzzerTestOneInput(bytes, make(bytes, &seed));
    printf("%ld streams\n", streams + (long)lines);
    return 0;
}
