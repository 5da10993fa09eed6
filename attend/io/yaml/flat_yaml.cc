#include <attend/core/error.h>
#include <attend/io/flat_yaml.h>

#include <yaml-cpp/yaml.h>

namespace attend {

FlatYaml parse_flat_yaml(std::string_view text, const std::string& name) {
    try {
        const YAML::Node root = YAML::Load(std::string(text));
        if (root.IsNull()) return {};  // nothing, or nothing but comments
        if (!root.IsMap()) {
            throw FileError("yaml", "expected names and values in '" + name + "', found another kind of document");
        }
        FlatYaml values;
        for (const auto& entry : root) {
            if (!entry.first.IsScalar()) continue;
            std::vector<std::string>& list = values[entry.first.as<std::string>()];
            if (entry.second.IsScalar()) list.push_back(entry.second.as<std::string>());
            if (!entry.second.IsSequence()) continue;
            for (const auto& value : entry.second) {
                if (value.IsScalar()) list.push_back(value.as<std::string>());
            }
        }
        return values;
    } catch (const YAML::Exception& error) {
        throw FileError("yaml", "expected YAML in '" + name + "', found an error: " + error.what());
    }
}

}  // namespace attend
