#include "commands.h"

int main(int argc, char** argv) {
    return attend::apps::run_command(argc, argv);
}
