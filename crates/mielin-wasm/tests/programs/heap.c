// The allocator, function pointers, deep recursion and standard input.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node { struct node *left, *right; uint32_t key; char text[40]; };

static uint32_t seed = 12345;
static uint32_t next(void) { seed ^= seed << 13; seed ^= seed >> 17; seed ^= seed << 5; return seed; }

static struct node *insert(struct node *tree, uint32_t key) {
    if (!tree) {
        tree = calloc(1, sizeof *tree);
        tree->key = key;
        snprintf(tree->text, sizeof tree->text, "node %u", (unsigned)key);
    } else if (key < tree->key) tree->left = insert(tree->left, key);
    else tree->right = insert(tree->right, key);
    return tree;
}

static uint64_t walk(struct node *tree, int depth) {
    if (!tree) return 0;
    uint64_t sum = walk(tree->left, depth + 1) + tree->key * (uint64_t)depth + strlen(tree->text);
    return sum + walk(tree->right, depth + 1);
}

static void drop(struct node *tree) {
    if (!tree) return;
    drop(tree->left);
    drop(tree->right);
    free(tree);
}

static int up(const void *a, const void *b) { return (*(uint32_t *)a > *(uint32_t *)b) - (*(uint32_t *)a < *(uint32_t *)b); }
static int down(const void *a, const void *b) { return up(b, a); }

int main(void) {
    char line[128];
    unsigned lines = 0, letters = 0;
    while (fgets(line, sizeof line, stdin)) { lines++; letters += strlen(line); }
    printf("%u lines, %u bytes\n", lines, letters);
    int (*orders[])(const void *, const void *) = { up, down };
    for (int round = 0; round < 6; round++) {
        struct node *tree = NULL;
        for (int i = 0; i < 1500; i++) tree = insert(tree, next());
        uint32_t *numbers = malloc(4000 * sizeof *numbers);
        for (int i = 0; i < 4000; i++) numbers[i] = next();
        qsort(numbers, 4000, sizeof *numbers, orders[round % 2]);
        printf("%d %llu %u %u\n", round, (unsigned long long)walk(tree, 1), (unsigned)numbers[0], (unsigned)numbers[3999]);
        drop(tree);
        free(numbers);
    }
    return 0;
}
