"""What ms-swift loads into its own process, by its argument external_plugins. No stage imports
these files: what they judge by is in the data that the stage depends on."""
