# The version is the core contract: a plugin that asks for 1 takes any installation of contract 1.
set(PACKAGE_VERSION 1)
if(PACKAGE_FIND_VERSION STREQUAL "" OR PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  set(PACKAGE_VERSION_EXACT TRUE)
else()
  set(PACKAGE_VERSION_UNSUITABLE TRUE)
endif()
