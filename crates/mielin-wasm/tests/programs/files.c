// Works with files in /data, and says all the time what it finds there, so that a difference shows:
// descriptors stay open over loops in which it can be stopped and moved.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long sum(FILE *file) {
    unsigned long sum = 5381;
    rewind(file);
    for (int c; (c = getc(file)) != EOF;) sum = sum * 33 + c;
    return sum;
}

static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void list(const char *path) {
    char *names[64];
    int count = 0;
    DIR *directory = opendir(path);
    if (!directory) { printf("%s: %s\n", path, strerror(errno)); return; }
    for (struct dirent *entry; (entry = readdir(directory)) && count < 64;) names[count++] = strdup(entry->d_name);
    closedir(directory);
    qsort(names, count, sizeof *names, compare);
    printf("%s:", path);
    for (int i = 0; i < count; i++) { printf(" %s", names[i]); free(names[i]); }
    printf("\n");
}

static void refused(const char *what, int result) {
    printf("%s: %s\n", what, result < 0 ? strerror(errno) : "done");
}

int main(void) {
    char path[64];
    struct stat stat_of;
    FILE *journal = fopen("/data/journal", "a+");
    FILE *table = fopen("/data/table", "w+");
    if (!journal || !table) { printf("no files: %s\n", strerror(errno)); return 1; }
    refused("mkdir", mkdir("/data/old", 0777));
    for (int i = 0; i < 40; i++) {
        fprintf(journal, "line %d\n", i);
        fseek(table, (i * 7919L) % 100000, SEEK_SET);
        fprintf(table, "<%d>", i);
        fflush(table);
        snprintf(path, sizeof path, "/data/part-%d", i % 5);
        FILE *part = fopen(path, "w");
        for (int j = 0; j < 50 * i; j++) fprintf(part, "%d\n", i ^ j);
        fclose(part);
        if (i % 5 == 4) {
            char to[64];
            snprintf(to, sizeof to, "/data/old/part-%d", i % 3);
            if (rename(path, to)) { printf("rename: %s\n", strerror(errno)); return 2; }
        }
        if (i % 10 == 9) printf("%d: %lu %lu\n", i, sum(journal), sum(table));
    }
    unlink("/data/table");
    list("/data");
    list("/data/old");
    fstat(fileno(table), &stat_of);
    printf("table: %lld bytes, %d names, %lu\n", (long long)stat_of.st_size, (int)stat_of.st_nlink, sum(table));
    fclose(table);
    refused("truncate", ftruncate(fileno(journal), 100));
    fseek(journal, 0, SEEK_END);
    printf("journal: %ld bytes, %lu\n", ftell(journal), sum(journal));
    refused("link", link("/data/journal", "/data/again"));
    refused("symlink", symlink("journal", "/data/symbolic"));
    refused("rmdir", rmdir("/data/old"));
    refused("exclusive", open("/data/journal", O_CREAT | O_EXCL | O_RDWR, 0666));
    refused("directory", open("/data/journal", O_DIRECTORY | O_RDONLY));
    refused("write a directory", open("/data/old", O_RDWR));
    refused("missing", open("/data/nothing", O_RDONLY));
    int top = open("/data", O_DIRECTORY | O_RDONLY);
    refused("above", openat(top, "../etc", O_RDONLY));
    refused("up and away", openat(top, "old/../../data/journal", O_RDONLY));
    refused("down and up", openat(top, "old/../journal", O_RDONLY));
    refused("elsewhere", open("/etc/passwd", O_RDONLY));
    return 0;
}
