/* SPDX-License-Identifier: MIT */
/* main.c - psbus, the command-line tool of libpsbus: which command, and help. */
#include "tool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct tool_command *const commands[] = {
    &tool_pub, &tool_sub, &tool_ls, &tool_top, &tool_doctor, &tool_why, &tool_bench,
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const char *command_name(const void *list, size_t i)
{
    static const char *const others[] = { "help", "--help", "--version", NULL };

    (void)list;
    return i < COMMANDS ? commands[i]->name : others[i - COMMANDS];
}

static void help(FILE *file)
{
    fputs("psbus - publish, subscribe, and see what a bus is doing\n\n", file);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(file, "  psbus %-6s %-29s %s\n", commands[i]->name, commands[i]->arguments, commands[i]->summary);
    fputs("\n"
          "  psbus COMMAND --help                 the options of a command\n"
          "  psbus --version                      the version of the library\n\n"
          "URL is shm://NAME, between the processes of this host, or anything else that ps_open() takes; /proc/PID/fd/N of a\n"
          "process leads to its anonymous bus: shm:///proc/PID/fd/N, as `psbus ls` shows it.\n"
          "Exit status: 0 done, or Ctrl-C; 1 an error; 2 a mistake in the call, its URL, topic, filter; 3 the time ran out.\n",
          file);
}

static const struct tool_command *find(const char *word)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(word, commands[i]->name) == 0)
            return commands[i];
    return NULL;
}

static int unknown(const char *word)
{
    const char *what = *word == '-' ? "option" : "command", *nearest = tool_nearest(word, command_name, NULL);

    if (nearest != NULL)
        return tool_usage("unknown %s '%s'; did you mean '%s'?", what, word, nearest);
    return tool_usage("unknown %s '%s'", what, word);
}

int main(int argc, char **argv)
{
    const char *word = argc < 2 ? "" : argv[1];
    int version = strcmp(word, "--version") == 0;

    if (tool_descriptors() != TOOL_OK)
        return TOOL_ERROR;
    signal(SIGPIPE, SIG_IGN);           /* a closed pipe is an error of the write */
    if (argc < 2) {
        help(stderr);
        return TOOL_USAGE;
    }
    if (version || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        if (argc > 3 || (argc > 2 && *word != 'h'))
            return tool_usage("'%s' is one argument too many", argv[argc > 3 && *word == 'h' ? 3 : 2]);
        if (argc == 3) {
            const struct tool_command *command = find(argv[2]);
            return command != NULL ? tool_help(command) : unknown(argv[2]);
        }
        if (version)
            printf("psbus %s\n", ps_version());
        else
            help(stdout);
        return tool_output(TOOL_OK);
    }
    tool_command = find(word);
    return tool_command != NULL ? tool_command->run(argc - 1, argv + 1) : unknown(word);
}
