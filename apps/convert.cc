#include "commands.h"
#include "options.h"

#include <attend/tasks/conversion.h>

#include <memory>
#include <string>

namespace attend::apps {

void add_convert(CLI::App& app) {
    struct Arguments {
        std::string model;
        std::string output;
        std::string compute_type = "int8";
    };
    CLI::App* command = app.add_subcommand("convert", "Write a Hugging Face folder again with its weights rounded");
    auto arguments = std::make_shared<Arguments>();
    command->add_option("MODEL", arguments->model, "Folder of an OPUS-MT model")->type_name("DIR")->required();
    command->add_option("-o,--output", arguments->output, "The new folder; there must be nothing yet")
        ->type_name("DIR")
        ->check(file_name())
        ->required();
    command
        ->add_option("--compute-type", arguments->compute_type,
                     "int8 (unless given): a scale for each row; bfloat16; or float32: one file of several")
        ->type_name("TYPE")
        ->check(one_of({"float32", "bfloat16", "int8"}));
    command->callback([arguments] {
        if (arguments->output == "-") {
            throw CLI::ValidationError("--output", "expected a folder, found '-' (standard output)");
        }
        convert_folder(arguments->model, arguments->output, *models::compute_type_named(arguments->compute_type));
    });
}

}  // namespace attend::apps
