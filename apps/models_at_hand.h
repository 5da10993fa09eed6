/// @file
/// The models that a user has, for who did not say which.
#pragma once

#include <string>

namespace attend::apps {

/// "models/en-pt, models/pt-en": folders with a translation model in models/ and $ATTEND_MODELS.
std::string models_at_hand();

}  // namespace attend::apps
