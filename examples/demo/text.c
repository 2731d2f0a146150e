/* SPDX-License-Identifier: MIT */
/* text.c - the text of the demo: the lines of files. */
#define _GNU_SOURCE                     /* nftw */

#include "demo.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct line *lines;
char (*topics)[PS_TOPIC_MAX + 1];
size_t line_count, file_count, text_bytes;
static size_t line_room, file_room;

/* Room for one more; arrays grow by doubling. */
static void *grown(void *array, size_t count, size_t *room, size_t each)
{
    if (count < *room)
        return array;
    *room = *room ? *room * 2 : 64;
    array = realloc(array, *room * each);
    if (array == NULL)
        die_system("memory");
    return array;
}

static void text_split(const char *text, size_t size, uint32_t file)
{
    while (size > 0) {
        const char *newline = memchr(text, '\n', size);
        size_t length = newline ? (size_t)(newline - text) : size;
        size_t step = length + (newline != NULL);
        if (length > LINE_MAX_BYTES)
            length = step = LINE_MAX_BYTES;
        lines = grown(lines, line_count, &line_room, sizeof *lines);
        lines[line_count++] = (struct line){ text, (uint32_t)length, file };
        text += step;
        size -= step;
    }
}

/* Called by nftw() for everything it finds. Files whose path is no legal topic are left out. */
static int text_add(const char *path, const struct stat *info, int type, struct FTW *where)
{
    char topic[PS_TOPIC_MAX + 1];
    FILE *file;
    char *text;

    (void)where;
    if (type != FTW_F || !S_ISREG(info->st_mode) || info->st_size == 0)
        return 0;
    if (snprintf(topic, sizeof topic, "text/%s", path) >= (int)sizeof topic || !ps_topic_valid(topic))
        return 0;
    if ((file = fopen(path, "rb")) == NULL)
        die_system(path);
    if ((text = malloc((size_t)info->st_size)) == NULL)
        die_system("memory");
    size_t size = fread(text, 1, (size_t)info->st_size, file);
    if (ferror(file))
        die_system(path);
    fclose(file);
    topics = grown(topics, file_count, &file_room, sizeof *topics);
    memcpy(topics[file_count], topic, sizeof topic);
    text_split(text, size, (uint32_t)file_count);
    file_count++;
    text_bytes += size;
    return 0;                           /* the text stays: lines point into it */
}

void text_read(const char *path)
{
    if (nftw(path, text_add, 16, FTW_PHYS) < 0)
        die_system(path);
}
