/* SPDX-License-Identifier: MIT */
/* main.c - psbus, the command-line tool of libpsbus: which command, and help. */
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct tool_command *const commands[] = { &tool_pub, &tool_sub, NULL };

static const char *command_name(const void *list, size_t i)
{
    const struct tool_command *command = ((const struct tool_command *const *)list)[i];

    return command ? command->name : NULL;
}

static void help(FILE *file)
{
    fputs("psbus - publish and subscribe on a bus\n\n", file);
    for (size_t i = 0; commands[i] != NULL; i++)
        fprintf(file, "  psbus %s %-32s %s\n", commands[i]->name, commands[i]->arguments, commands[i]->summary);
    fputs("\n"
          "  psbus COMMAND --help                       the options of a command\n"
          "  psbus --version\n\n"
          "URL is shm://NAME, between the processes of this host, or anything else that ps_open() takes.\n"
          "Exit status: 0 done, or Ctrl-C; 1 an error; 2 a mistake in the call; 3 the time ran out.\n",
          file);
}

int main(int argc, char **argv)
{
    int status = TOOL_OK;

    if (argc < 2) {
        help(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
    } else if (strcmp(argv[1], "--version") == 0) {
        printf("psbus %s\n", ps_version());
    } else {
        for (size_t i = 0; commands[i] != NULL; i++)
            if (strcmp(argv[1], commands[i]->name) == 0) {
                tool_command = commands[i];
                return tool_command->run(argc - 1, argv + 1);
            }
        const char *nearest = tool_nearest(argv[1], command_name, commands);
        if (nearest != NULL)
            return tool_usage("unknown command '%s'; did you mean '%s'?", argv[1], nearest);
        return tool_usage("unknown command '%s'", argv[1]);
    }
    if (fflush(stdout) != 0) {
        tool_say("standard output: %s", strerror(errno));
        status = TOOL_ERROR;
    }
    return status;
}
