/// @file
/// Which search a folder and its options ask for.
#pragma once

#include <attend/search/search.h>
#include <attend/tasks/translation_folder.h>
#include <attend/tasks/translator.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

namespace attend {

/// Makes the search of a source of so many tokens, its end included.
using MakeSearch = std::function<std::unique_ptr<search::Search>(std::int64_t)>;

/// Marian's search for Mozilla's folders, Transformers' for Hugging Face's; and how many hypotheses it finds at most.
/// @throws ValueError for options of the other family, or that make no search
std::pair<MakeSearch, std::int64_t> translation_search(const TranslationFolder& folder,
                                                       const TranslationOptions& options);

}  // namespace attend
